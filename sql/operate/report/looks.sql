-- The last resnapshots and verifies, newest first. Runs on: target. Returns (tables, dry_run, phase, attempts, requested_at, finished_at, error).
select cardinality(tables) as tables, dry_run, phase, attempts, requested_at::text as requested_at, finished_at::text as finished_at, error
  from resnapshot order by id desc limit 10
