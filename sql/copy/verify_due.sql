-- Asks for a verify where the schedule says so, and plans the next one. Runs on: target, by itself, while nothing else is
-- going on. $1 hours between two (integer), $2 at most so many percent more, at random (integer), $3 report only, mend
-- nothing (boolean), $4 the request (text, a uuid). Returns a row if it was asked for.
--
-- The first one is due an interval after the first look: what was just copied needs no verifying. A shorter interval in
-- the policy counts at once. While another resnapshot waits or is held, this one stays due.
with planned as materialized (
    select now() + $1 * interval '1 hour' * (1 + $2 / 100.0 * random()) as next_at
), due as materialized (
    select s.next_at <= now() as is_due,
           s.next_at <= now() and not exists (select from resnapshot where finished_at is null) as may
      from verify_schedule s
), asked as (
    insert into resnapshot (request, tables, dry_run, scheduled) select $4::text::uuid, '{}', $3, true from due where may
    returning id
), scheduled as (
    insert into verify_schedule (next_at)
    select p.next_at from planned p left join due d on true where d.is_due is not true or d.may
    on conflict (one) do update set next_at = excluded.next_at
        where verify_schedule.next_at <= now() or verify_schedule.next_at > now() + $1 * interval '1 hour' * (1 + $2 / 100.0)
)
select id from asked
