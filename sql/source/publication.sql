-- What our publication publishes. Runs on: source. $1 publication name. Returns a row per table
-- (schema, table, has a column list or row filter), with all-NULL table columns for an empty publication.
-- publication_version and entry_version change whenever somebody alters either, or drops it and makes it again: what
-- LiteLLM wrote in between may be in no stream.
--
-- Reads the catalogs themselves: the view pg_publication_tables opens every table it lists (17 and newer), and would wait
-- behind whoever has one locked.
select p.puballtables, p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate as all_operations,
       pg_get_userbyid(p.pubowner) = current_user as ours,
       t.schemaname, t.tablename, p.oid || '/' || p.xmin::text || coalesce((select string_agg(n.oid || '/' || n.xmin::text, ',' order by n.oid)
           from pg_catalog.pg_publication_namespace n where n.pnpubid = p.oid), '') as publication_version,
       t.entry_version, coalesce(t.narrowed, false) as narrowed
  from pg_catalog.pg_publication p
  left join lateral (
       select n.nspname::text as schemaname, c.relname::text as tablename, r.oid || '/' || r.xmin::text as entry_version,
              to_jsonb(r) ->> 'prattrs' is not null or to_jsonb(r) ->> 'prqual' is not null as narrowed
         from pg_catalog.pg_class c
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         left join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid
        where c.relkind in ('r', 'p')
          and (r.oid is not null
               or p.puballtables and c.relpersistence = 'p' and n.nspname not in ('pg_catalog', 'information_schema')
               or exists (select from pg_catalog.pg_publication_namespace s where s.pnpubid = p.oid and s.pnnspid = n.oid))
       ) t on true
 where p.pubname = $1
