-- What was done within the last day, by kind. Runs on: target. Returns (operation, result, count, last).
select operation, sync_result as result, count(*) as count, max(created_at)::text as last
  from sync_audit
 where created_at > now() - interval '1 day'
 group by operation, sync_result
 order by operation, sync_result
