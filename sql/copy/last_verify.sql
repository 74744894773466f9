-- What the last look at everything found. Runs on: target. Returns at (seconds since 1970), repaired (it mended what it
-- found), failed, drift (JSON); no row where there was none yet.
select extract(epoch from finished_at)::float8 as at, not dry_run as repaired, error is not null as failed, drift::text as drift
  from resnapshot where finished_at is not null and tables = '{}' order by id desc limit 1
