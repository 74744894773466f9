-- Which budgets are used up by LiteLLM's rows, once more and without the product: docs/src/spending.md as SQL. :now is a timestamp in
-- UTC. Returns (kind, id), a member's id as team/user.
with entity as (
    select 'user' as kind, user_id as id, spend, max_budget as hard, false as above from "LiteLLM_UserTable"
    union all
    select 'key', token, spend, max_budget + case when (metadata ->> 'temp_budget_expiry')::timestamptz at time zone 'UTC' > :now
                                                  then coalesce((metadata ->> 'temp_budget_increase')::float8, 0) else 0 end, false
      from "LiteLLM_VerificationToken"
    union all
    select 'team', team_id, spend, max_budget, true from "LiteLLM_TeamTable"
    union all
    select 'organization', o.organization_id, o.spend, b.max_budget, false
      from "LiteLLM_OrganizationTable" o join "LiteLLM_BudgetTable" b using (budget_id)
    union all
    select 'team_member', m.team_id || '/' || m.user_id, m.spend,
           coalesce(b.max_budget, case when d.max_budget > 0 then d.max_budget end)
               + case when b.temp_budget_expiry > :now then coalesce(b.temp_budget_increase, 0) else 0 end, false
      from "LiteLLM_TeamMembership" m
      left join "LiteLLM_BudgetTable" b on b.budget_id = m.budget_id
      left join "LiteLLM_TeamTable" t on t.team_id = m.team_id
      left join "LiteLLM_BudgetTable" d on d.budget_id = t.metadata ->> 'team_member_budget_id'
    union all
    select w.kind, w.id, s.spend, (l ->> 'max_budget')::float8, false
      from (select 'key' as kind, token as id, budget_limits from "LiteLLM_VerificationToken"
            union all
            select 'team', team_id, budget_limits from "LiteLLM_TeamTable") w
      cross join jsonb_array_elements(w.budget_limits) l
      join "LiteLLM_BudgetWindowSpend" s on lower(s.entity_type) = w.kind and s.entity_id = w.id and s.window_duration = l ->> 'budget_duration'
     where s.window_start >= (l ->> 'reset_at')::timestamptz at time zone 'UTC' - (l ->> 'budget_duration')::interval
)
select distinct kind, id from entity
 where hard not in ('NaN', 'Infinity', '-Infinity') and (spend > hard or spend = hard and not above)
