-- Dead letters, the critical ones first. Runs on: target. $1 at most this many (bigint; NULL is all).
select kind, key, operation, sqlstate, reason, critical, attempts, first_seen::text as first_seen, last_seen::text as last_seen
  from dead_letter
 order by critical desc, last_seen desc, kind, key
 limit $1
