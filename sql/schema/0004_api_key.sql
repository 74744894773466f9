-- What personal API keys need besides the mirror. Runs on: target, search_path = our schema.

create table minted_key (
    webui_id  text collate "C" primary key,
    sha256    bytea       not null,
    newest    text collate "C" not null,
    minted_at timestamptz not null
);
comment on table minted_key is
    'The API keys we made, by the Open WebUI account that has one and the SHA-256 of the key, wherever Open WebUI keeps it. A row whose key is gone there: its person deleted it.';
comment on column minted_key.newest is
    'created_at of the newest usable LiteLLM key its person had when we last saw ours. A newer one is a reason to mint again.';

-- When the next key expires. LiteLLM's server sends "2026-11-23 15:20:00.123", in UTC: in this collation, text order is
-- the order of time.
create index litellm_key_expires on litellm_key (expires collate "C") where expires is not null;
