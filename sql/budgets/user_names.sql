-- What users are called, for those that are shown. Runs on: source. :schema LiteLLM's schema, :which who: by id or by hash of
-- it, with $1 and $2. Returns (ids, aliases, email).
select array[u.user_id] as ids, array[u.user_alias] as aliases, u.user_email as email
  from :schema."LiteLLM_UserTable" u
 where :which
