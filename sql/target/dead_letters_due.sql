-- Which dead letters are due for a retry: the less often the longer they fail. Runs on: target. $1 the kinds we know
-- (text[]). Returns kind, key. Those of other kinds come last: nobody tries them, so they would be first for ever.
select kind, key from dead_letter
 where last_seen < now() - least(3600, 10 * 2 ^ least(attempts, 10)) * interval '1 second'
 order by kind <> all ($1), last_seen limit 500
