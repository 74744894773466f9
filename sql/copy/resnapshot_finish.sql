-- Ends a request that was met. Runs on: target. $1 id, $2 its consistent point (pg_lsn), $3 drift (text, JSON).
update resnapshot set phase = 'done', lsn = $2, error = null, drift = $3::text::jsonb, finished_at = now()
 where id = $1
