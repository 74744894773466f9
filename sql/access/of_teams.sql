-- The teams of the people of $1 (text[]), with everything that narrows them. Runs on: target.
select user_id, team_id, in_roster, blocked, models, group_models, organization_id, organization_models, member_models
  from access_team where user_id = any ($1) order by 1, 2
