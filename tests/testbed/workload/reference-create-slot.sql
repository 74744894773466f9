-- Makes the slot that counts. Runs on: source.
-- $1 slot name (text). Returns 1 row: its position (text).
select lsn::text from pg_create_logical_replication_slot($1::text::name, 'pgoutput');
