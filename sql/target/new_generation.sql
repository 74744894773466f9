-- Installs the checkpoint of a copy at its consistent point, in the transaction that merges the copy.
-- Runs on: target. $1 generation, $2 system identifier, $3 timeline, $4 database oid, $5 slot,
-- $6 consistent point, $7 columns fingerprint. The counters start anew. Returns the epoch.
insert into checkpoint (generation, system_identifier, timeline, database_oid, slot, consistent_point, end_lsn, columns_fingerprint)
values ($1::text::uuid, $2, $3, $4, $5, $6, $6, $7)
on conflict (one) do update
   set generation = excluded.generation, system_identifier = excluded.system_identifier, timeline = excluded.timeline,
       database_oid = excluded.database_oid, slot = excluded.slot, consistent_point = excluded.consistent_point,
       end_lsn = excluded.end_lsn, transactions_applied = 0, changes_applied = 0, committed_at = null,
       committed_end = null, copy_because = null,
       epoch = checkpoint.epoch + 1, projected_with = 'pending', columns_fingerprint = excluded.columns_fingerprint,
       updated_at = clock_timestamp()
returning epoch
