-- Records an entity that could not be written. Runs on: target, in the batch's transaction.
-- $1 kind, $2 key, $3 operation, $4 sqlstate, $5 reason, $6 now (timestamptz), $7 end of the batch (pg_lsn).
-- The audit row is written once per entity and reason, not once per retry.
with known as (
    select reason from dead_letter where kind = $1 and key = $2
), letter as (
    insert into dead_letter (kind, key, operation, sqlstate, reason, first_seen, last_seen)
    values ($1, $2, $3, $4, $5, $6, $6)
    on conflict (kind, key) do update
        set operation = excluded.operation, sqlstate = excluded.sqlstate, reason = excluded.reason,
            last_seen = excluded.last_seen, attempts = dead_letter.attempts + 1
)
insert into sync_audit (operation, record_id, sync_result, error_message, created_at, lsn)
select $3, $2, 'FAILED', $5, $6, $7 where not exists (select from known where reason = $5)
