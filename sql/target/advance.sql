-- Writes the checkpoint where nothing else is to be written. Runs on: target, by itself.
-- $1 our epoch, $2 the end_lsn we know, $3 the new one, $4 transactions, $5 changes (both added to the totals),
-- $6 when the source committed the newest of them (timestamptz) and $7 where it ended (pg_lsn), both NULL if there was none;
-- $8 where the row was last, as in begin_batch.sql.
-- Returns 1 row, where it is now (text); or none if another daemon took over. The position never goes back.
update checkpoint
   set end_lsn = $3, transactions_applied = transactions_applied + $4, changes_applied = changes_applied + $5,
       committed_at = coalesce($6, committed_at), committed_end = coalesce($7, committed_end),
       updated_at = clock_timestamp()
 where ctid = coalesce((select c.ctid from checkpoint c where c.ctid = $8::text::tid), (select c.ctid from checkpoint c))
   and epoch = $1 and end_lsn = $2 and end_lsn <= $3
returning ctid::text
