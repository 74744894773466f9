-- Which dead letters are due for a retry: the less often the longer they fail. Runs on: target. Returns kind, key.
select kind, key from dead_letter
 where last_seen < now() - least(3600, 10 * 2 ^ least(attempts, 10)) * interval '1 second'
 order by last_seen limit 500
