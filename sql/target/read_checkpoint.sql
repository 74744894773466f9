-- Reads the checkpoint and waits for whoever is writing it: after a COMMIT with an unknown outcome a
-- plain read could still see the old row while the old backend commits. Runs on: target, in a transaction.
-- Returns 0 or 1 row.
select generation::text as generation, system_identifier, timeline, database_oid, slot, consistent_point, end_lsn,
       transactions_applied, changes_applied, epoch, projected_with, committed_at, committed_end, expired_through,
       columns_fingerprint, copy_because
  from checkpoint for update
