-- What happened to one entity lately. Runs on: target. $1 record_id. Newest first.
select created_at::text as at, operation, sync_result, error_message, lsn::text as lsn
  from sync_audit where record_id = $1 order by id desc limit 20
