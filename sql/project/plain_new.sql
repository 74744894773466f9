-- The short way for people who are simply new: makes their accounts, in the round trip that writes the mirror and commits.
-- Runs on: target, where e-mails are unique. $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 LiteLLM user ids, each once
-- (text[]), $4 the table Open WebUI's people are in (its oid, bigint). Returns one row: how many were made. Fails with an error of
-- class 22 where one of them is not as plain as that: the batch is then rolled back and goes the general way.
--
-- What it decides is what account_difference.sql decides ("create", where nothing is known of the person or their e-mail), and that
-- no group and no API key is theirs yet. "limit 1 is true" and not "exists": that could be planned as a hash of the whole table, and
-- the plan is kept.
with known as materialized (
    select k.user_id, 'usr_' || k.user_id as id, p.email, p.name, p.role,
           p.user_id is not null and a.user_id is null and w.id is null and au.id is null
               and webui_user_id(k.user_id) = 'usr_' || k.user_id and not (select plain_ids from policy)
               -- "is not true": one that is there is in the way.
               and (select true from litellm_user r
                     where r.email = p.email and r.user_id <> k.user_id limit 1) is not true
               and (select true from "user" h where lower(h.email) = p.email collate "default" limit 1) is not true
               and (select true from account h where h.email = p.email and not h.in_step limit 1) is not true
               and (select true from account h where h.webui_id = 'usr_' || k.user_id limit 1) is not true
               and (select true from skipped s where s.user_id = k.user_id limit 1) is not true
               and (select true from dead_letter l
                     where l.kind in ('account', 'last_admin', 'access', 'api_key') and l.key = k.user_id limit 1) is not true
               and (select true from minted_key h where h.webui_id = 'usr_' || k.user_id limit 1) is not true
               and (select true from litellm_key t where t.user_id = k.user_id limit 1) is not true
               and (select true from team_roster r where r.user_id = k.user_id limit 1) is not true
               and (select true from team_roster r where r.email = p.email limit 1) is not true
               and (select true from litellm_organization_membership m where m.user_id = k.user_id limit 1) is not true
               and (select true from litellm_user u
                     where u.user_id = k.user_id and u.organization_id is not null limit 1) is not true
               and (select true from member m where m.user_id = 'usr_' || k.user_id limit 1) is not true as is_plain
      from unnest($3::text[]) as k(user_id)
      left join profile p on p.user_id = k.user_id
      left join account a on a.user_id = k.user_id
      left join "user" w on w.id = ('usr_' || k.user_id) collate "default"
      left join auth au on au.id = ('usr_' || k.user_id) collate "default"
), fresh as (
    select user_id, id, email, name, role from known where is_plain
), :new_user, new_auth as (
    -- '' never verifies.
    insert into auth (id, email, password, active) select id, email, '', true from fresh
), new_account as (
    insert into account (user_id, email, origin, gave_admin) select user_id, email, 'created', role = 'admin' from fresh
), audit as (
    insert into sync_audit (operation, record_id, sync_result, new_data, created_at, lsn)
    select 'SYNC_USER', user_id, 'SUCCESS',
           jsonb_object(array['webui_id', 'email', 'name', 'role'], array[id, email, name, role]), $1, $2
      from fresh
)
select case when bool_and(is_plain is true) and (:people) is not distinct from $4 then count(*)
            -- No number: this fails, and says why in the server's log.
            else ('litellm-webui-sync: not simply new, goes the general way: ' || count(*))::bigint end as created
  from known
