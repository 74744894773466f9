-- Writes the checkpoint of a batch, in the batch's transaction. Runs on: target. The position never goes back.
-- $1 our epoch, $2 new end_lsn, $3 transactions, $4 changes (both added to the totals),
-- $5 when the source committed the newest of them (timestamptz) and $6 where it ended (pg_lsn), both NULL if there was none;
-- $7 projected_with, $8 where the row was last, as in begin_batch.sql. Returns where it is now (text).
update checkpoint
   set end_lsn = $2, transactions_applied = transactions_applied + $3, changes_applied = changes_applied + $4,
       committed_at = coalesce($5, committed_at), committed_end = coalesce($6, committed_end), projected_with = $7,
       updated_at = clock_timestamp()
 where ctid = coalesce((select c.ctid from checkpoint c where c.ctid = $8::text::tid), (select c.ctid from checkpoint c))
   and epoch = $1 and end_lsn <= $2
returning ctid::text
