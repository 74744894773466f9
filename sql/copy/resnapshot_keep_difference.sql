-- Keeps what was found, after the merge was rolled back or committed. Runs on: target. $1 the request's id, $2
-- operations, $3 record ids, $4 results, $5 old data, $6 new data (all text[], one element a row).
with former as (
    -- Of an attempt that was cut off.
    delete from resnapshot_difference where resnapshot = $1
)
insert into resnapshot_difference (resnapshot, operation, record_id, sync_result, old_data, new_data)
select $1, f.operation, f.record_id, f.result, f.old_data::jsonb, f.new_data::jsonb
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) f(operation, record_id, result, old_data, new_data)
