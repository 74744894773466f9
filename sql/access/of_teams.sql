-- What narrows the team paths of some people. Runs on: target. :person_team gives (user_id, team_id, in_roster), each pair once.
-- Teams and their organizations are looked up one by one ("offset 0"), as in of_keys.sql; "is true" and not "exists", which could be planned
-- as a hash. Where no budget is used up at all, nobody's is looked up.
select p.user_id, t.team_id, p.in_roster, coalesce(t.blocked = 't', false) as blocked, t.models,
       case when cardinality(t.access_group_ids) > 0 then access_group_models(t.access_group_ids) end as group_models,
       o.organization_id, o.models as organization_models, b.allowed_models as member_models,
       exists (select from budget_closed) and (select true from budget_closed c
         where c.kind = 'team' and c.id = t.team_id and c.team_id = '' limit 1) is true as budget_closed,
       exists (select from budget_closed) and (select true from budget_closed c
         where c.kind = 'organization' and c.id = o.organization_id and c.team_id = '' limit 1) is true as organization_closed,
       exists (select from budget_closed) and (select true from budget_closed c
         where c.kind = 'team_member' and c.id = p.user_id and c.team_id = p.team_id limit 1) is true as member_closed
  from (:person_team) p
  cross join lateral (select * from litellm_team where team_id = p.team_id offset 0) t
  left join lateral (select * from litellm_organization where organization_id = t.organization_id offset 0) o on true
  left join litellm_team_membership tm on tm.user_id = p.user_id and tm.team_id = p.team_id
  left join litellm_budget b on b.budget_id = tm.budget_id
 order by 1, 2
