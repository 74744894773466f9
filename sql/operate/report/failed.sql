-- What failed last, newest first. Runs on: target. Returns (at, operation, result, error, record_id).
select created_at::text as at, operation, sync_result as result, error_message as error, record_id
  from sync_audit
 where id > coalesce((select pg_sequence_last_value(pg_get_serial_sequence('sync_audit', 'id')::regclass) - 100000), 0)
   and sync_result = 'FAILED'
 order by id desc
 limit 20
