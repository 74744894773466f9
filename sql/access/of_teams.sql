-- What narrows the team paths of some people. Runs on: target. :person_team gives (user_id, team_id, in_roster), each pair once;
-- :one_by_one as in of_people.sql. "is true" and not "exists", which could be planned as a hash. Where no budget is used up at all,
-- nobody's is looked up. From team_id on, it is about the team, and the same for all of its people.
select p.user_id, p.in_roster, b.allowed_models as member_models,
       exists (select from budget_closed) and (select true from budget_closed c
         where c.kind = 'team_member' and c.id = p.user_id and c.team_id = p.team_id limit 1) is true as member_closed,
       t.team_id, coalesce(t.blocked = 't', false) as blocked, t.models,
       case when cardinality(t.access_group_ids) > 0 then access_group_models(t.access_group_ids) end as group_models,
       o.organization_id, o.models as organization_models,
       exists (select from budget_closed) and (select true from budget_closed c
         where c.kind = 'team' and c.id = t.team_id and c.team_id = '' limit 1) is true as budget_closed,
       exists (select from budget_closed) and (select true from budget_closed c
         where c.kind = 'organization' and c.id = o.organization_id and c.team_id = '' limit 1) is true as organization_closed
  from (:person_team) p
  cross join lateral (select * from litellm_team where team_id = p.team_id :one_by_one) t
  left join lateral (select * from litellm_organization where organization_id = t.organization_id :one_by_one) o on true
  left join litellm_team_membership tm on tm.user_id = p.user_id and tm.team_id = p.team_id
  left join litellm_budget b on b.budget_id = tm.budget_id
