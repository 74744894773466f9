-- Dead letters by what they are and what the server said, for gauges. Runs on: target. Returns (kind, sqlstate, count).
select kind, sqlstate, count(*) as count from dead_letter group by kind, sqlstate
