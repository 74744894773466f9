-- Forgets what is old: audit rows, and what finished resnapshots found. Runs on: target. $1 days (integer).
with found as (
    delete from resnapshot where finished_at < now() - make_interval(days => $1)
)
delete from sync_audit where created_at < now() - make_interval(days => $1)
