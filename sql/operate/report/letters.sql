-- Dead letters that say the same, together. Runs on: target. Returns (kind, operation, sqlstate, reason, critical, count, attempts, first_seen,
-- last_seen, keys): keys are LiteLLM's ids, at most 20.
select kind, operation, sqlstate, reason, critical, count(*) as count, max(attempts) as attempts,
       min(first_seen)::text as first_seen, max(last_seen)::text as last_seen,
       (array_agg(key order by last_seen desc, key))[1:20] as keys
  from dead_letter
 group by kind, operation, sqlstate, reason, critical
 order by critical desc, max(last_seen) desc, kind, reason
 limit 100
