-- Keeps the last answer of LiteLLM's /v1/models. Runs on: target. $1 names (text[]).
-- Returns one row: how many names came or went.
with gone as (
    delete from other_model where origin = 'polled' and name <> all ($1::text[] collate "C") returning 1
), came as (
    insert into other_model (name, origin) select distinct name, 'polled' from unnest($1::text[]) n(name)
    on conflict do nothing returning 1
)
select (select count(*) from gone) + (select count(*) from came) as changed
