-- Whether Open WebUI takes people out of groups when they sign in. Runs on: target. Reads both shapes of table config, as
-- api_keys.sql does. Returns one row: oauth, ldap ('true', 'false', or NULL where nothing is stored: then its environment decides).
with setting as (
    select to_jsonb(c) as s from config c
), document as (
    select s -> 'data' as d from setting where s ? 'data' order by (s ->> 'id')::bigint desc limit 1
)
select coalesce((select s ->> 'value' from setting where s ->> 'key' = 'oauth.enable_group_mapping'),
                (select d #>> '{oauth,enable_group_mapping}' from document)) as oauth,
       coalesce((select s ->> 'value' from setting where s ->> 'key' = 'ldap.group.enable_management'),
                (select d #>> '{ldap,group,enable_management}' from document)) as ldap
