-- The teams of the people of $1 (text[]) and of their keys, with everything that narrows them. Runs on: target. Looked up one by one
-- ("offset 0"), as in of_keys.sql.
select t.user_id, t.team_id, t.in_roster, t.blocked, t.models, t.group_models, t.organization_id, t.organization_models,
       t.member_models, t.budget_closed, t.organization_closed, t.member_closed
  from unnest($1::text[]) g(id) cross join lateral (select * from access_team where user_id = g.id collate "C" offset 0) t
 order by 1, 2
