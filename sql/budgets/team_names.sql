-- What teams are called, for those that are shown. Runs on: source. :schema LiteLLM's schema, :which who: by id or by hash of
-- it, with $1 and $2. Returns (ids, aliases, email).
select array[t.team_id] as ids, array[t.team_alias] as aliases, null::text as email
  from :schema."LiteLLM_TeamTable" t
 where :which
