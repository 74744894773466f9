-- The oldest request that is to run now. Runs on: target. Returns 0 or 1 row. One that the brake holds runs once it is
-- approved.
select id, tables, dry_run, scheduled, because from resnapshot r
 where finished_at is null
   and (not_before <= now()
        or exists (select from brake b where b.resnapshot = r.id and b.approved_at is not null and b.used_at is null))
 order by id limit 1
