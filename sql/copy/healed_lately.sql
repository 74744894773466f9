-- How many gaps the daemon healed by copying everything within the last hour. Runs on: target. A copy that was interrupted is
-- tried again, at growing distances, and is still for the same gap: only one that ended counts.
select count(*) from backfill where healing and finished_at > now() - interval '1 hour'
