-- What was written lately, newest first, for the status page. Runs on: target. $1 rows after this id (bigint; NULL is the
-- newest 100,000: ids are given out once, and those of a batch that was held or a dry run came to nothing), $2 at most this many (bigint).
select id, created_at, operation, record_id, sync_result, error_message,
       coalesce(new_data ->> 'email', old_data ->> 'email') as email,
       coalesce(new_data ->> 'name', old_data ->> 'name') as name,
       coalesce(new_data ->> 'count', new_data ->> 'people', new_data ->> 'groups')::bigint as count,
       (new_data ->> 'added')::bigint as added, (new_data ->> 'removed')::bigint as removed
  from sync_audit
 where id > coalesce($1, (select pg_sequence_last_value(pg_get_serial_sequence('sync_audit', 'id')::regclass) - 100000), 0)
 order by id desc
 limit $2
