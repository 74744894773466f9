-- Whether LiteLLM's tables are being changed, and how they look now. Runs on: source; reads catalogs only. $1 schema.
-- Returns one row: shape, which is another one after any DDL on tables and indexes of the schema; busy, whether somebody is at it:
-- holds or waits for a lock that only DDL takes, builds an index (CONCURRENTLY takes a weaker lock, for minutes), or holds the
-- advisory lock 72707369, which Prisma's migrations and LiteLLM's own have from the first to the last of them.
select (select md5(string_agg(c.oid || '/' || c.xmin::text || '/' || c.relfilenode || '/' || c.relnatts, ',' order by c.oid))
          from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where n.nspname = $1 and c.relkind in ('r', 'p', 'i')) as shape,
       exists (select from pg_catalog.pg_locks l
                 join pg_catalog.pg_class c on c.oid = l.relation
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = $1 and l.pid <> pg_backend_pid()
                  and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
                  and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
    or exists (select from pg_catalog.pg_locks l
                where l.locktype = 'advisory' and l.granted and l.classid = 0 and l.objid = 72707369
                  and l.database = (select oid from pg_catalog.pg_database where datname = current_database()))
    or exists (select from pg_catalog.pg_stat_progress_create_index where datname = current_database()) as busy
