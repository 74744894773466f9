-- Who holds our slot. Runs on: source. $1 slot name. Returns 0 or 1 row: the session's name, which ends with the daemon's
-- instance, where it comes from (NULL: this host's socket, or another role's session and no pg_read_all_stats), seconds.
select coalesce(a.application_name, '') as name, host(a.client_addr) as client,
       extract(epoch from clock_timestamp() - a.backend_start)::float8 as seconds
  from pg_catalog.pg_replication_slots s
  join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
 where s.slot_name = $1
