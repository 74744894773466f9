-- Links existing Open WebUI accounts to LiteLLM users: adopts those found with a user's e-mail, and
-- gives a departed person's account to whoever has its e-mail now. Only our ledger is written here;
-- update_accounts.sql brings the rows in line.
-- Runs on: target, after create_accounts.sql. $1 now (timestamptz), $2 end of the batch (pg_lsn),
-- $3 one audit row per person (boolean; else a summary), $4, $5 and :users (see account_difference.sql).
-- Returns the user ids that were linked.
with :account_difference, adopted as (
    -- pending *and* a closed log-in is what we do to accounts, and nobody else: kept by a purge, it comes back.
    insert into account (user_id, webui_id, email, origin, active, in_step, former_role, gave_admin, before)
    select d.user_id, nullif(d.target_id, 'usr_' || d.user_id), d.email, 'adopted',
           not (w.role = 'pending' and au.active is false), not (w.role = 'pending' and au.active is false),
           case when w.role = 'pending' and au.active is false then 'user' end,
           -- Made an admin for LiteLLM's sake, so LiteLLM may take it back.
           w.role = 'admin' and d.is_bridged and d.target_id = d.id,
           jsonb_build_object('name', w.name, 'role', w.role, 'email', w.email, 'auth_email', au.email, 'active', au.active)
      from difference d
      join "user" w on w.id = d.target_id collate "default"
      left join auth au on au.id = w.id
     where d.action = 'adopt'
    -- Theirs was deleted in Open WebUI.
    on conflict (user_id) do update
        set webui_id = excluded.webui_id, email = excluded.email, origin = excluded.origin, active = excluded.active,
            in_step = excluded.in_step, former_role = excluded.former_role, gave_admin = excluded.gave_admin, before = excluded.before
    returning user_id, coalesce(webui_id, 'usr_' || user_id) as id, 'ADOPT_USER' as operation
), forgotten_key as (
    -- What a deleted account had went with it.
    delete from minted_key m using difference d where d.action = 'adopt' and d.has_account and m.webui_id = d.id and m.webui_id <> d.target_id
), forgotten_member as (
    delete from member m using difference d where d.action = 'adopt' and d.has_account and m.user_id = d.id and m.user_id <> d.target_id
), relinked as (
    update account a
       set user_id = d.user_id, webui_id = nullif(d.target_id, 'usr_' || d.user_id), in_step = false
      from difference d
     where d.action = 'relink' and a.user_id = d.departed_user_id
    returning a.user_id, coalesce(a.webui_id, 'usr_' || a.user_id) as id, 'RELINK_USER' as operation
), former_person as (
    -- They have no account any more. That they get none is said here: nothing of theirs is touched.
    insert into skipped (user_id, reason, since)
    select d.departed_user_id, p.unusable_because, $1
      from difference d join person p on p.user_id = d.departed_user_id
     where d.action = 'relink' and p.unusable_because is not null
    on conflict (user_id) do update set reason = excluded.reason
), linked as (
    select * from adopted union all select * from relinked
), audit as (
    insert into sync_audit (operation, record_id, sync_result, new_data, created_at, lsn)
    select operation, user_id, 'SUCCESS', jsonb_build_object('webui_id', id), $1, $2 from linked where $3
    union all
    select operation, null, 'SUCCESS', jsonb_build_object('count', count(*)), $1, $2
      from linked where not $3 group by operation
)
select user_id from linked
