-- The short way for a small batch of nothing but changed users: inserts the accounts of people who are simply new, and
-- renames those of whom only the name differs. Whoever is not as plain as that comes back, and goes the general way.
-- Runs on: target, first of the projection, where e-mails are unique. $1 now (timestamptz), $2 end of the batch (pg_lsn),
-- $3 LiteLLM user ids, each once (text[]). Returns one row: created, renamed, rest (user ids), keyless (user ids of new
-- people whom no API key concerns).
--
-- Planning aside, a statement this small costs what its executor needs to start: the general ones need three times that.
-- What it decides is what account_difference.sql decides: "create" where nothing is known of the person or their
-- e-mail, "update" where name alone differs, "same" where nothing does.
-- "limit 1 is true" and not "exists": that could be planned as a hash of the whole table, and the plan is kept.
-- Names are only written here if this is all there is to do, because that is done right before COMMIT.
with known as materialized (
    select k.user_id, coalesce(a.webui_id, 'usr_' || k.user_id) as id, p.email, p.name, p.role,
           w.name as w_name, au.active as auth_active,
           case
               when p.user_id is null
                    or (select true from account h where h.email = p.email and not h.in_step limit 1) is true
                    or (select true from dead_letter l
                         where l.kind in ('account', 'last_admin') and l.key = k.user_id limit 1) is true
                    or (select true from skipped s where s.user_id = k.user_id limit 1) is true then 'other'
               when a.user_id is null then case
                   when w.id is not null or au.id is not null or webui_user_id(k.user_id) <> 'usr_' || k.user_id
                        or (select plain_ids from policy)
                        or (select true from litellm_user r
                             where r.email = p.email and r.user_id <> k.user_id limit 1) is true
                        or (select true from account h where h.webui_id = 'usr_' || k.user_id limit 1) is true
                        or (select true from minted_key h where h.webui_id = 'usr_' || k.user_id limit 1) is true
                        or (select true from "user" h where lower(h.email) = p.email collate "default" limit 1) is true
                   then 'other' else 'new' end
               when a.active and a.in_step and a.email = p.email and a.former_role is null
                    and w.email = p.email collate "default" and au.email = p.email collate "default"
                    and w.role = p.role and (p.role = 'admin' or not a.gave_admin)
               then case when w.name = p.name then 'same' else 'renamed' end
               else 'other'
           end as kind,
           -- Groups are the business of others: whoever may be in one, or is, goes the general way as well.
           (select true from team_roster r where r.user_id = k.user_id limit 1) is true
               or (select true from team_roster r where r.email = p.email limit 1) is true
               or (select true from litellm_organization_membership m where m.user_id = k.user_id limit 1) is true
               or (select true from litellm_user u
                    where u.user_id = k.user_id and u.organization_id is not null limit 1) is true
               or (select true from member m
                    where m.user_id = coalesce(a.webui_id, 'usr_' || k.user_id) limit 1) is true as in_group
      from unnest($3::text[]) as k(user_id)
      left join profile p on p.user_id = k.user_id
      left join account a on a.user_id = k.user_id
      left join "user" w on w.id = coalesce(a.webui_id, 'usr_' || k.user_id) collate "default"
      left join auth au on au.id = coalesce(a.webui_id, 'usr_' || k.user_id) collate "default"
), alone as materialized (
    select not exists (select from known where kind = 'other' or in_group) as is_all
), fresh as materialized (
    select user_id, id, email, name, role from known where kind = 'new'
), renamed as materialized (
    select user_id, id, email, name, role, w_name, auth_active
      from known where kind = 'renamed' and (select is_all from alone)
), :new_user, new_auth as (
    -- '' never verifies.
    insert into auth (id, email, password, active) select id, email, '', true from fresh
), new_account as (
    insert into account (user_id, email, origin, gave_admin) select user_id, email, 'created', role = 'admin' from fresh
), changed_user as (
    update "user" w set name = r.name, updated_at = extract(epoch from $1)::bigint
      from renamed r where w.id = r.id collate "default"
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, new_data, created_at, lsn)
    select 'SYNC_USER', user_id, 'SUCCESS', null,
           jsonb_object(array['webui_id', 'email', 'name', 'role'], array[id, email, name, role]), $1, $2
      from fresh
    union all
    select 'SYNC_USER', user_id, 'SUCCESS',
           jsonb_build_object('email', email, 'name', w_name, 'role', role, 'active', auth_active),
           jsonb_object(array['webui_id', 'email', 'name', 'role'], array[id, email, name, role]), $1, $2
      from renamed
)
select (select count(*) from fresh) as created, (select count(*) from renamed) as renamed,
       coalesce((select array_agg(k.user_id) from known k, alone
                  where k.kind = 'other' or k.in_group or k.kind = 'renamed' and not is_all), '{}') as rest,
       coalesce((select array_agg(f.user_id) from fresh f
                  where (select true from litellm_key t where t.user_id = f.user_id limit 1) is not true
                    and (select true from dead_letter l
                          where l.kind = 'api_key' and l.key = f.user_id limit 1) is not true), '{}') as keyless
