-- LiteLLM's rules about budgets once more, from its tables: docs/src/budgets.md as SQL. :now is a timestamp in UTC.
-- Returns (kind, id, spend, limit, state, reset), text, as the metrics name them.
with finite as (
    select 'user' as kind, user_id as id, user_id as hashed, spend, max_budget as hard, null::float8 as soft, budget_reset_at as reset
      from "LiteLLM_UserTable"
    union all
    select 'key', null,
           case when k.token ~ '^[0-9a-fA-F]{64}$' then k.token else 'clear:' || encode(sha256(convert_to(k.token, 'UTF8')), 'hex') end,
           k.spend,
           k.max_budget + case when (k.metadata ->> 'temp_budget_expiry')::timestamptz at time zone 'UTC' > :now
                               then coalesce((k.metadata ->> 'temp_budget_increase')::float8, 0) else 0 end,
           nullif(b.soft_budget, 0),
           case when b.budget_id is not null and k.budget_duration is null then b.budget_reset_at else k.budget_reset_at end
      from "LiteLLM_VerificationToken" k left join "LiteLLM_BudgetTable" b on b.budget_id = k.budget_id
    union all
    select 'team', team_id, team_id, spend, max_budget, soft_budget, budget_reset_at from "LiteLLM_TeamTable"
    union all
    select 'organization', o.organization_id, o.organization_id, o.spend, b.max_budget, nullif(b.soft_budget, 0), b.budget_reset_at
      from "LiteLLM_OrganizationTable" o join "LiteLLM_BudgetTable" b on b.budget_id = o.budget_id
    union all
    select 'team_member', m.team_id || '/' || m.user_id, null, m.spend,
           case when b.max_budget is not null then b.max_budget + increase.now
                when d.max_budget <= 0 then null
                else d.max_budget + increase.now end,
           nullif(case when b.max_budget is not null then b.soft_budget else coalesce(b.soft_budget, d.soft_budget) end, 0),
           b.budget_reset_at
      from "LiteLLM_TeamMembership" m
      left join "LiteLLM_BudgetTable" b on b.budget_id = m.budget_id
      left join "LiteLLM_TeamTable" t on t.team_id = m.team_id
      left join "LiteLLM_BudgetTable" d on d.budget_id = t.metadata ->> 'team_member_budget_id'
      cross join lateral (select case when b.temp_budget_expiry > :now then coalesce(b.temp_budget_increase, 0) else 0 end) as increase (now)
    union all
    select 'customer', c.user_id, c.user_id, c.spend, b.max_budget, nullif(b.soft_budget, 0), b.budget_reset_at
      from "LiteLLM_EndUserTable" c left join "LiteLLM_BudgetTable" b on b.budget_id = c.budget_id
), entity as (
    select kind, spend, reset,
           case when hard in ('NaN', 'Infinity', '-Infinity') then null else hard end as hard,
           case when soft in ('NaN', 'Infinity', '-Infinity') then null else soft end as soft,
           case when kind = 'key' then left(encode(sha256(convert_to(hashed, 'UTF8')), 'hex'), 12)
                when length(id) > 100 and kind <> 'team_member'
                then left(id, 87) || '…' || left(encode(sha256(convert_to(id, 'UTF8')), 'hex'), 12)
                else id end as id
      from finite
)
select kind, id, spend::text, hard::text,
       case when hard is not null and (spend > hard or spend = hard and kind not in ('team', 'customer')) then 'exceeded'
            when hard > 0 and spend / hard >= 0.8 or hard <= 0 and spend >= hard then 'warning'
            when spend >= soft then 'soft'
            when hard is null then 'unlimited'
            else 'ok' end as state,
       round(extract(epoch from reset) * 1000)::text as reset
  from entity
 where length(id) <= 200
