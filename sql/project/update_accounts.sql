-- Updates accounts that differ from what they should be: the last statement before COMMIT, so that
-- its row locks (which stall a person's API requests) are short.
-- Runs on: target. $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per person (boolean; else
-- a summary), $4, $5 and :users (see account_difference.sql), $6 user ids that have their audit row already (text[]).
-- Returns one row: updated, kept_admins.
--
-- Written: name, e-mail, role, auth.active. Everything else a person or Open WebUI edits stays.
with :account_difference, planned as materialized (
    select d.user_id, d.action, d.email, d.name, d.role, d.id,
           d.w_name, d.w_email, d.w_role, w.created_at, d.has_auth, d.auth_active,
           d.active as was_active, d.gave_admin, d.contested,
           case when d.active then d.w_role else d.former_role end as role_before,
           case
               when d.action = 'depart' then 'pending'
               when not d.active then case
                   when d.former_role = 'pending' then 'pending'
                   when d.role = 'admin' then 'admin'
                   when d.former_role = 'admin' and not d.gave_admin and not demote_always then 'admin'
                   else 'user'
               end
               -- Set by an Open WebUI admin, or waiting for one: not ours to promote.
               when d.w_role = 'pending' then 'pending'
               when d.role = 'admin' then 'admin'
               when d.w_role = 'admin' and not d.gave_admin and not demote_always then 'admin'
               else 'user'
           end as new_role
      from difference d
      join "user" w on w.id = d.id collate "default"
      cross join policy
     where d.action in ('update', 'return', 'depart')
), losing as materialized (
    select user_id, row_number() over (order by created_at, id) as place
      from planned where w_role = 'admin' and new_role <> 'admin'
), kept_admin as materialized (
    -- Open WebUI without an active admin cannot be administered any more, nor get a new one.
    select user_id from losing
     where place = 1
       -- Counting admins reads all of "user": only when somebody is to lose the role.
       and case when exists (select from losing) then
               (select count(*) from losing) >=
               (select count(*) from "user" w join auth au on au.id = w.id where w.role = 'admin' and au.active)
           end
), done as materialized (
    -- Of the admin who is kept only the role stays as it is; a departure does not happen at all.
    select p.user_id, p.action, p.email, p.name, p.role, p.id, p.w_name, p.w_email, p.w_role, p.has_auth, p.auth_active,
           p.was_active, p.gave_admin, p.contested, p.role_before,
           case when k.user_id is not null then p.w_role else p.new_role end as new_role
      from planned p left join kept_admin k on k.user_id = p.user_id
     where k.user_id is null or p.action <> 'depart'
), changed_user as (
    update "user" w
       set name = coalesce(d.name, w.name), email = coalesce(d.email, w.email), role = d.new_role,
           updated_at = extract(epoch from $1)::bigint
      from done d where w.id = d.id collate "default"
), changed_auth as (
    update auth au
       set email = coalesce(d.email, au.email),
           active = case d.action when 'depart' then false when 'return' then true else au.active end
      from done d where au.id = d.id collate "default"
), new_auth as (
    insert into auth (id, email, password, active)
    select id, coalesce(email, lower(w_email)), '', action <> 'depart' from done where not has_auth
), ledger as (
    update account a
       set email = coalesce(d.email, a.email),
           active = d.action <> 'depart',
           in_step = d.action <> 'depart' and not d.contested,
           former_role = case when d.action <> 'depart' then null when a.active then d.w_role else a.former_role end,
           gave_admin = case when d.action = 'depart' then a.gave_admin
                             else d.new_role = 'admin' and (a.gave_admin or d.role_before is distinct from 'admin') end
      from done d where a.user_id = d.user_id
), letter as (
    insert into dead_letter (kind, key, operation, reason, critical, first_seen, last_seen)
    select 'last_admin', user_id, 'SYNC_USER',
           'this is the last active admin of Open WebUI, so LiteLLM''s change was not applied', true, $1, $1
      from kept_admin
    on conflict (kind, key) do update set last_seen = excluded.last_seen, attempts = dead_letter.attempts + 1
), resolved as (
    delete from dead_letter l using done d
     where l.kind = 'last_admin' and l.key = d.user_id and d.user_id not in (select user_id from kept_admin)
), happened as (
    -- A contested account has its SYNC_USER row from the dead letter already.
    select case when contested then 'SYNC_PROFILE' when action = 'depart' then 'DEACTIVATE_USER'
                when action = 'return' then 'REACTIVATE_USER' else 'SYNC_USER' end as operation,
           'SUCCESS' as result, user_id, null as error,
           jsonb_build_object('email', w_email, 'name', w_name, 'role', w_role, 'active', auth_active) as old_data,
           jsonb_strip_nulls(jsonb_build_object('webui_id', id, 'email', email, 'name', name, 'role', new_role)) as new_data
      from done where user_id <> all ($6)
    union all
    select 'SYNC_USER', 'FAILED', k.user_id, 'last active admin kept', null, null from kept_admin k
     where not exists (select from dead_letter l where l.kind = 'last_admin' and l.key = k.user_id)
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, new_data, error_message, created_at, lsn)
    select operation, user_id, result, old_data, new_data, error, $1, $2 from happened where $3
    union all
    select operation, null, result, null, jsonb_build_object('count', count(*)), null, $1, $2
      from happened where not $3 group by operation, result
)
select (select count(*) from done) as updated, (select count(*) from kept_admin) as kept_admins
