-- What members of teams are called, for those that are shown. Runs on: source. :schema LiteLLM's schema, :which who: by ids
-- or by hash of them, with $1 and $2. Returns (ids, aliases, email): the user's before the team's.
select array[m.user_id, m.team_id] as ids, array[u.user_alias, t.team_alias] as aliases, u.user_email as email
  from :schema."LiteLLM_TeamMembership" m
  left join :schema."LiteLLM_UserTable" u using (user_id)
  left join :schema."LiteLLM_TeamTable" t on t.team_id = m.team_id
 where :which
