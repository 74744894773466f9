-- Notes a request that arrived as a logical message. Runs on: target. Messages are delivered again after a crash, and
-- anybody may send them: once each, and few at a time, those that wait for an approval apart. $1 request (text, a uuid),
-- $2 tables (text[]; empty: all), $3 whether only to report (boolean).
insert into resnapshot (request, tables, dry_run)
select $1::text::uuid, $2, $3
 where (select count(*) from resnapshot where finished_at is null and not_before <> 'infinity') < 10
   and (select count(*) from resnapshot where requested_at > now() - interval '1 hour') < 1000
on conflict (request) do nothing
