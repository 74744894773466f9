-- Keeps what LiteLLM last said it serves. Runs on: target. Two arrays of one length: $1 names, each once, and $2 the access groups each
-- is tagged with, a JSON array (text[]). Returns one row: how many names came, went, or have other groups.
with said as materialized (
    select s.name collate "C" as name, array(select jsonb_array_elements_text(s.tags::jsonb)) as tags
      from unnest($1::text[], $2::text[]) s(name, tags)
), gone as (
    delete from other_model o where o.origin = 'polled' and o.name not in (select name from said) returning 1
), changed as (
    update other_model o set tags = s.tags
      from said s where o.origin = 'polled' and o.name = s.name and o.tags <> s.tags returning 1
), came as (
    insert into other_model (name, origin, tags) select name, 'polled', tags from said on conflict do nothing returning 1
)
select (select count(*) from gone) + (select count(*) from changed) + (select count(*) from came) as changed
