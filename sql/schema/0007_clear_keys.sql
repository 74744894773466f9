-- A key that LiteLLM keeps in the clear has another name in the mirror than before. Runs on: target, search_path = our schema.

comment on column litellm_key.token is 'The SHA-256 of the key, as LiteLLM keeps it; where it keeps the key itself, `clear:` and the SHA-256 of that.';

-- Which rows are meant cannot be told from the mirror: everything is copied once.
update checkpoint set copy_because = coalesce(copy_because, 'this release tells apart keys that LiteLLM keeps in the clear');
