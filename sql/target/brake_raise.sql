-- Raises the brake, or brings the one that is up to date: one at a time, however often the batch is tried.
-- Runs on: target, after the batch was rolled back. $1 end of the batch (pg_lsn), $2 people (bigint), $3 active people
-- (bigint), $4 the resnapshot whose merge this is (bigint; NULL: a batch of the stream). Returns the brake's id.
with open as (
    update brake set end_lsn = $1, people = $2::bigint::int, active = $3::bigint::int
     where approved_at is null and used_at is null and resnapshot is not distinct from $4::bigint returning id
), outgrown as (
    -- What was approved for this merge was for fewer people.
    update brake set used_at = now()
     where approved_at is not null and used_at is null and resnapshot = $4::bigint
), raised as (
    insert into brake (end_lsn, people, active, reason, resnapshot)
    select $1, $2::bigint::int, $3::bigint::int,
           'accounts to be locked, or left without a group, a model or an API key', $4::bigint
     where not exists (select from open) returning id
)
select id from open union all select id from raised
