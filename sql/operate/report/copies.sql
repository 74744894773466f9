-- The last copies, newest first. Runs on: target. Returns (reason, healing, point, started_at, finished_at).
select reason, healing, point::text as point, started_at::text as started_at, finished_at::text as finished_at
  from backfill order by id desc limit 10
