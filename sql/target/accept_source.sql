-- Takes the LiteLLM database at hand as ours, in place of the one the checkpoint belongs to: the next start copies it. Runs on:
-- target, under the lease. $1 system identifier, $2 timeline, $3 database oid, $4 slot, $5 why it is copied.
update checkpoint
   set system_identifier = $1, timeline = $2, database_oid = $3, slot = $4, copy_because = $5, updated_at = clock_timestamp()
