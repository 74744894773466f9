-- What our own books say needs a person. Runs on: target, where our schema is. Returns one row.
select (select count(*) from dead_letter) as dead_letters, (select count(*) from dead_letter where critical) as critical,
       (select count(*) from dead_letter where kind = 'account' and sqlstate is null) as email_conflicts,
       (select count(*) from dead_letter where kind = 'last_admin') as last_admins,
       (select count(*) from brake where used_at is null and approved_at is null) as brakes,
       (select reason from pause) as pause_reason, exists (select from pause) as paused
