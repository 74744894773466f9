-- Notes the files of LiteLLM's tables, and asks for a look at those that were rewritten since: `alter column … type … using` changes
-- values with no row in the stream. Runs on: target. $1 tables (text[]), $2 their relfilenodes (bigint[]), $3 the request (text, a
-- uuid), $4 report only, mend nothing (boolean), $5 whether to ask at all: not where everything was just copied (boolean).
-- Returns the names of those that were rewritten. VACUUM FULL, CLUSTER and TRUNCATE give a table another file too; a look finds
-- nothing then.
with found as materialized (
    select * from unnest($1::text[], $2::bigint[]) f(name, filenode)
), rewritten as materialized (
    select f.name from found f join table_file t on t.name = f.name where t.filenode <> f.filenode
), noted as (
    insert into table_file (name, filenode) select name, filenode from found
    on conflict (name) do update set filenode = excluded.filenode where table_file.filenode <> excluded.filenode
), asked as (
    insert into resnapshot (request, tables, dry_run, because)
    select $3::text::uuid, array_agg(name), $4, 'LiteLLM''s tables were rewritten: ' || string_agg(name, ', ')
      from rewritten where $5 having count(*) > 0
)
select name from rewritten where $5 order by 1
