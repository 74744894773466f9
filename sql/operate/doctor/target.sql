-- What decides whether Open WebUI's database takes what we write. Runs on: target. $1 Open WebUI's schema;
-- $2 tables and $3 (arrays of one length) a privilege we need on each, where it exists. Returns one row.
select current_setting('server_version_num')::int as version,
       coalesce((select ssl from pg_catalog.pg_stat_ssl where pid = pg_backend_pid()), false) as tls,
       coalesce(host(inet_client_addr()) in ('127.0.0.1', '::1'), true) as local,
       extract(epoch from clock_timestamp())::float8 as clock,
       pg_is_in_recovery() as standby,
       -- Asked for by every connection of ours (src/target.rs): a pooler may have left it out.
       current_setting('plan_cache_mode') = 'force_generic_plan' as settings_kept,
       has_database_privilege(current_database(), 'temporary') as temporary,
       (select array_agg(format('%s on %s', p.privilege, p.table_name) order by p.table_name, p.privilege)
          from unnest($2::text[], $3::text[]) p(table_name, privilege)
          join pg_catalog.pg_class c on c.relname = p.table_name and c.relkind = 'r'
          join pg_catalog.pg_namespace n on n.oid = c.relnamespace and n.nspname = $1
         where not has_table_privilege(c.oid, p.privilege)) as lacking
