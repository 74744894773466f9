-- The checkpoint for a person. Runs on: target. Returns 0 or 1 row.
select end_lsn, transactions_applied, changes_applied, epoch, generation::text as generation, consistent_point,
       projected_with <> 'pending' as projected, timeline,
       extract(epoch from clock_timestamp() - updated_at)::float8 as age_seconds
  from checkpoint
