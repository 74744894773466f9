-- What the projection of a merge did: its audit rows. Runs on: target, in the merge's transaction.
-- $1 now (timestamptz), $2 the consistent point (pg_lsn).
select operation, record_id, sync_result, old_data::text as old_data, new_data::text as new_data
  from sync_audit where created_at = $1 and lsn = $2 order by operation, record_id
