-- Why people get no account, for gauges. Runs on: target. Returns (reason, count).
select reason, count(*) as count from skipped group by reason
