-- Notes a request that arrived as a logical message. Runs on: target. Messages are delivered again after a crash, and
-- anybody may send them: once each, and few at a time. $1 request (text, a uuid), $2 tables (text[]; empty: all),
-- $3 whether only to report (boolean).
insert into resnapshot (request, tables, dry_run)
select $1::text::uuid, $2, $3
 where (select count(*) from resnapshot where finished_at is null) < 10
on conflict (request) do nothing
