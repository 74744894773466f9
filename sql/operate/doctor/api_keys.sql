-- Whether Open WebUI lets people use personal API keys at all. Runs on: target. Reads both shapes of table config: a row
-- per key, and one document. Returns one row: enabled (the switch), permitted (the default permission), both NULL where
-- nothing is stored, because then its environment decides; by_group (some group has the permission).
with setting as (
    select to_jsonb(c) as s from config c
), document as (
    select s -> 'data' as d from setting where s ? 'data' order by (s ->> 'id')::bigint desc limit 1
)
select coalesce((select s ->> 'value' from setting where s ->> 'key' = 'auth.enable_api_keys'),
                (select coalesce(d #>> '{auth,enable_api_keys}', d #>> '{auth,api_key,enable}') from document)) as enabled,
       coalesce((select s #>> '{value,features,api_keys}' from setting where s ->> 'key' = 'user.permissions'),
                (select d #>> '{user,permissions,features,api_keys}' from document)) as permitted,
       exists (select from "group" g where g.permissions #>> '{features,api_keys}' = 'true') as by_group
