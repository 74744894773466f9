-- The short way for people of whom LiteLLM changed nothing that decides over groups, keys or models: renames their accounts, in the
-- round trip that writes the mirror and commits. Runs on: target, where e-mails are unique. $1 now (timestamptz), $2 end of the
-- batch (pg_lsn), $3 LiteLLM user ids, each once (text[]), $4 the table Open WebUI's people are in (its oid, bigint). Returns one
-- row: how many were renamed. Fails with an error of class 22 where one of them is not as plain as that: the batch is then rolled back
-- and goes the general way.
--
-- What it decides is what account_difference.sql decides: "update" where the name alone differs, "same" where nothing does.
-- Last before COMMIT, so that locks on Open WebUI's rows are short.
with known as materialized (
    select k.user_id, coalesce(a.webui_id, 'usr_' || k.user_id) as id, p.email, p.name, p.role,
           w.name as w_name, au.active as auth_active,
           a.active and a.in_step and a.email = p.email and a.former_role is null
               and w.email = p.email collate "default" and au.email = p.email collate "default"
               and w.role = p.role and (p.role = 'admin' or not a.gave_admin)
               and (select true from account h where h.email = p.email and not h.in_step limit 1) is not true
               -- Whatever of theirs could not be written is tried again by the general way.
               and (select true from dead_letter l
                     where l.kind in ('account', 'last_admin', 'access', 'api_key')
                       and l.key = k.user_id limit 1) is not true
               and (select true from skipped s where s.user_id = k.user_id limit 1) is not true as is_plain
      from unnest($3::text[]) as k(user_id)
      left join profile p on p.user_id = k.user_id
      left join account a on a.user_id = k.user_id
      left join "user" w on w.id = coalesce(a.webui_id, 'usr_' || k.user_id) collate "default"
      left join auth au on au.id = coalesce(a.webui_id, 'usr_' || k.user_id) collate "default"
), renamed as (
    select user_id, id, email, name, role, w_name, auth_active from known where is_plain and w_name is distinct from name
), changed_user as (
    update "user" w set name = r.name, updated_at = extract(epoch from $1)::bigint
      from renamed r where w.id = r.id collate "default"
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, new_data, created_at, lsn)
    select 'SYNC_USER', user_id, 'SUCCESS',
           jsonb_build_object('email', email, 'name', w_name, 'role', role, 'active', auth_active),
           jsonb_object(array['webui_id', 'email', 'name', 'role'], array[id, email, name, role]), $1, $2
      from renamed
)
select case when bool_and(is_plain is true) and (:people) is not distinct from $4
            then count(*) filter (where w_name is distinct from name)
            -- No number: this fails, and says why in the server's log.
            else ('litellm-webui-sync: more than a name, goes the general way: ' || count(*))::bigint end as renamed
  from known
