-- One audit row per entity and batch, where the projection looked at somebody twice: the last row stays, with the old
-- data of the first one, and what joined and left a group adds up. Runs on: target, in the batch's transaction.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn).
with mine as materialized (
    select id, operation, record_id, old_data, new_data,
           max(id) over same as last_id, min(id) over same as first_id
      from sync_audit
     where created_at = $1 and lsn = $2 and record_id is not null
    window same as (partition by operation, record_id)
), merged as materialized (
    select last_id, array_agg(id) filter (where id <> last_id) as others,
           (array_agg(old_data order by id))[1] as old_data,
           sum((new_data ->> 'added')::bigint) as added, sum((new_data ->> 'removed')::bigint) as removed
      from mine where first_id <> last_id
     group by last_id
), gone as (
    delete from sync_audit s using merged m where s.id = any (m.others) and s.created_at = $1
)
update sync_audit s
   set old_data = m.old_data,
       new_data = case when s.operation in ('SYNC_TEAM_MEMBERS', 'SYNC_ORG_MEMBERS')
                       then s.new_data || jsonb_build_object('added', m.added, 'removed', m.removed)
                       else s.new_data end
  from merged m where s.id = m.last_id and s.created_at = $1
