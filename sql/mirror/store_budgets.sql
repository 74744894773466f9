-- Writes which budgets are used up, with the batch that crossed their limits, and says whose access follows. Runs on: target. $1 now
-- (timestamptz), $2 end of the batch (pg_lsn), then an array for each column: $3 kind, $4 id, $5 team_id, $6 email (text[]), $7 closed
-- (boolean[]), $8 spend, $9 limit (float8[]), $10 resets_at (timestamptz[]).
-- Returns (kind, id) of who is touched, and 'closed' or 'opened' with the kind of budget, one row each.
with given as materialized (
    select kind collate "C" as kind, id collate "C" as id, team_id collate "C" as team_id, email, closed, spend, "limit", resets_at
      from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::float8[], $9::float8[], $10::timestamptz[])
           g(kind, id, team_id, email, closed, spend, "limit", resets_at)
), known as materialized (
    select g.*, b.kind is not null as was_closed, b.spend as was_spend, b."limit" as was_limit
      from given g left join budget_closed b on (b.kind, b.id, b.team_id) = (g.kind, g.id, g.team_id)
), gone as (
    delete from budget_closed b using known k
     where not k.closed and (b.kind, b.id, b.team_id) = (k.kind, k.id, k.team_id)
), put as (
    insert into budget_closed (kind, id, team_id, email, spend, "limit", resets_at, since)
    select kind, id, team_id, email, spend, "limit", resets_at, $1 from known where closed
    on conflict (kind, id, team_id) do update
       set spend = excluded.spend, "limit" = excluded."limit", resets_at = excluded.resets_at
), crossed as materialized (
    select * from known where closed <> was_closed
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, new_data, created_at, lsn)
    select case when closed then 'BUDGET_CLOSED' else 'BUDGET_OPENED' end,
           -- A token is never shown: as in the metrics, a hash of it.
           case kind when 'key' then left(encode(sha256(convert_to(id, 'UTF8')), 'hex'), 12)
                     when 'team_member' then team_id || '/' || id else id end,
           'SUCCESS',
           case when was_closed then jsonb_build_object('kind', kind, 'spend', was_spend, 'limit', was_limit) end,
           case when closed then jsonb_build_object('kind', kind, 'spend', spend, 'limit', "limit", 'resets_at', resets_at) end,
           $1, $2
      from crossed
)
select case when closed then 'closed' else 'opened' end as kind, kind as id from crossed
union all
select 'models', id from crossed where kind in ('user', 'team_member')
union all
select 'models', k.user_id from crossed c join litellm_key k on k.token = c.id where c.kind = 'key' and k.user_id is not null
union all
select 'models', u.user_id from crossed c join litellm_user u on u.email = c.email where c.kind = 'customer'
union all
select 'team_rights', id from crossed where kind = 'team'
union all
select 'organization_rights', id from crossed where kind = 'organization'
