-- Which of LiteLLM's keys are a person's, and which of those still open anything.

-- blocked and expires are what LiteLLM's server sent: 't', 'f' or NULL; a time in UTC or NULL, which is never.
-- `now` is a parameter, so that the projection is a function of its inputs. LiteLLM refuses a key once expires < now.
create or replace function key_is_usable(blocked text, expires text, now timestamptz) returns boolean
language sql stable parallel safe as $$
    select blocked is distinct from 't' and (expires is null or expires::timestamp at time zone 'UTC' >= now)
$$;

-- One row per key that counts for its owner: no session of LiteLLM's own pages, no service account.
create or replace view personal_key as
select k.user_id, k.token, k.blocked, k.expires, k.created_at collate "C" as created_at
  from litellm_key k
 where k.user_id is not null
   and k.team_id is distinct from 'litellm-dashboard'
   and k.metadata ->> 'service_account_id' is null;

-- Who has to do with API keys at all: owners of LiteLLM keys, of keys we minted, and of those that could not be written.
create or replace view key_concern as
select k.user_id from litellm_key k where k.user_id is not null
union
select a.user_id from minted_key m join account a on a.webui_id = m.webui_id
union
select a.user_id from minted_key m join account a on a.webui_id is null and m.webui_id like 'usr\_%' and a.user_id = substr(m.webui_id, 5)
union
select l.key from dead_letter l where l.kind = 'api_key';
