-- What customers are called, for those that are shown. Runs on: source. :schema LiteLLM's schema, :which who: by id or by hash of
-- it, with $1 and $2. Returns (ids, aliases, email).
select array[c.user_id] as ids, array[c.alias] as aliases, null::text as email
  from :schema."LiteLLM_EndUserTable" c
 where :which
