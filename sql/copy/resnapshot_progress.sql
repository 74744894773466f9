-- How far a request is. Runs on: target. $1 id, $2 phase, $3 rows copied so far (bigint; NULL: as it was).
update resnapshot set phase = $2, rows_copied = coalesce($3, rows_copied), progress_at = now() where id = $1
