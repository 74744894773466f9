-- Opens a batch: locks the checkpoint row and proves that we still lead. Runs on: target.
-- $1 our epoch, $2 the end_lsn we know, $3 where the row was last (its ctid as text, or NULL).
-- Returns 1 row, where it is (text); or none if another daemon took over.
--
-- While somebody keeps an old snapshot, no former version of the row can be removed, and whoever looks for the one that
-- counts reads them all. $3 leads there at once; it is a hint, and where it is wrong the row is looked for.
select ctid::text from checkpoint
 where ctid = coalesce((select c.ctid from checkpoint c where c.ctid = $3::text::tid), (select c.ctid from checkpoint c))
   and epoch = $1 and end_lsn = $2 for update
