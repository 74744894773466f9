-- What became of a request. Runs on: target. $1 request (text, a uuid). Returns 0 or 1 row.
select id, phase, rows_copied, error, drift::text as drift, lsn::text as lsn, finished_at is not null as finished
  from resnapshot where request = $1::text::uuid
