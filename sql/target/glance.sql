-- The leader's heartbeat, and all that it looks for by the clock, in one statement. Runs on: target, every few seconds.
-- $1 instance (text, a uuid), $2 state, $3 reason, $4 layout (NULL: as it was), $5 now (timestamptz), $6 the second up to which
-- whoever used Open WebUI was looked at (bigint, NULL: none); :was_active is sql/target/was_active.sql, or false.
-- Returns one row: a pause (paused_since, pause_reason; NULL without one); is_requested, whether a copy is to run now; may_verify,
-- whether the schedule has to be asked; has_letters, whether a dead letter is due; has_expired and expires_soon, whether keys have
-- expired since that was last looked for, or will within seconds; was_active, whether people used Open WebUI since; moved, which is another text once there is something else to
-- show; and the checkpoint as in sql/observe/status.sql (NULL without one).
with beat as (
    insert into daemon (instance, state, reason, layout) values ($1::text::uuid, $2, $3, $4)
    on conflict (one) do update set instance = excluded.instance, state = excluded.state, reason = excluded.reason,
        layout = coalesce(excluded.layout, daemon.layout), heartbeat_at = now()
), known as materialized (
    select end_lsn, transactions_applied, changes_applied, epoch, generation::text as generation, consistent_point,
           projected_with <> 'pending' as projected, timeline, expired_through,
           extract(epoch from clock_timestamp() - updated_at)::float8 as age_seconds
      from checkpoint
), expiring as materialized (
    -- Compared as in sql/mirror/expired_keys.sql, for the index.
    select min(k.expires collate "C") as first
      from litellm_key k
     where k.expires collate "C" >= coalesce(to_char((select expired_through from known) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'), '')
       and k.expires collate "C" <= to_char(($5 + interval '4 s') at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')
       and k.user_id is not null
), shown as materialized (
    select (select max(id)::text from sync_audit) as audit,
           (select count(*) || ' ' || coalesce(max(last_seen)::text, '') from dead_letter) as letters,
           (select string_agg(id || coalesce(approved_at::text, ''), ' ' order by id) from brake where used_at is null) as brakes
)
select (select since::text from pause) as paused_since, (select reason from pause) as pause_reason,
       exists (select from resnapshot r
                where finished_at is null
                  and (not_before <= now()
                       or exists (select from brake b
                                   where b.resnapshot = r.id and b.approved_at is not null and b.used_at is null))) as is_requested,
       coalesce((select next_at <= now() from verify_schedule), true) as may_verify,
       exists (select from dead_letter
                where last_seen < now() - least(3600, 10 * 2 ^ least(attempts, 10)) * interval '1 second') as has_letters,
       coalesce(e.first <= to_char($5 at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'), false) as has_expired,
       e.first is not null as expires_soon, :was_active as was_active,
       concat_ws('/', k.changes_applied, s.audit, s.letters, s.brakes) as moved,
       k.end_lsn, k.transactions_applied, k.changes_applied, k.epoch, k.generation, k.consistent_point, k.projected, k.timeline,
       k.age_seconds
  from shown s cross join expiring e left join known k on true
