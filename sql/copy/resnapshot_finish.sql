-- Ends a request. Runs on: target. $1 id, $2 its consistent point (pg_lsn), $3 error (NULL: done),
-- $4 drift (text, JSON; NULL where there is an error).
update resnapshot set phase = case when $3::text is null then 'done' else 'failed' end, lsn = $2, error = $3,
       drift = $4::text::jsonb, finished_at = now()
 where id = $1
