-- The Open WebUI rows a request found to differ. Runs on: target. $1 the request's id.
select operation, record_id, sync_result, old_data::text as old_data, new_data::text as new_data
  from resnapshot_difference where resnapshot = $1 order by operation, record_id limit 10000
