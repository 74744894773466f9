-- Keeps the models that only the policy names (`models.extra`). Runs on: target. $1 names (text[]).
with gone as (
    delete from other_model where origin = 'policy' and name <> all ($1::text[])
)
insert into other_model (name, origin) select distinct name, 'policy' from unnest($1::text[]) n(name)
on conflict do nothing
