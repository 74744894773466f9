-- Audit rows past their retention. Runs on: target. $1 days (integer).
delete from sync_audit where created_at < now() - make_interval(days => $1)
