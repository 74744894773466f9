-- What our publication publishes. Runs on: source. $1 publication name. Returns a row per table
-- (schema, table, has a column list or row filter), with all-NULL table columns for an empty publication.
-- publication_version and entry_version change whenever somebody alters either, or drops it and makes it again: what
-- LiteLLM wrote in between may be in no stream.
select p.puballtables, p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate as all_operations,
       pg_get_userbyid(p.pubowner) = current_user as ours,
       t.schemaname::text, t.tablename::text, p.oid || '/' || p.xmin::text || coalesce((select string_agg(n.oid || '/' || n.xmin::text, ',' order by n.oid)
           from pg_catalog.pg_publication_namespace n where n.pnpubid = p.oid), '') as publication_version,
       (select r.oid || '/' || r.xmin::text from pg_catalog.pg_publication_rel r
         where r.prpubid = p.oid and r.prrelid = format('%I.%I', t.schemaname, t.tablename)::regclass) as entry_version,
       exists (select from pg_catalog.pg_publication_rel r
                where r.prpubid = p.oid and r.prrelid = format('%I.%I', t.schemaname, t.tablename)::regclass
                  and (to_jsonb(r) ->> 'prattrs' is not null or to_jsonb(r) ->> 'prqual' is not null)) as narrowed
  from pg_catalog.pg_publication p
  left join pg_catalog.pg_publication_tables t on t.pubname = p.pubname
 where p.pubname = $1
