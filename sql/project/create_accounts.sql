-- Inserts the accounts that are missing, and keeps the books of who gets none and why.
-- Runs on: target, first of the projection. $1 now (timestamptz), $2 end of the batch (pg_lsn),
-- $3 one audit row per person (boolean; else a summary), $4, $5 and :users (see account_difference.sql).
-- Returns one row: counts by action, and who gave up an e-mail in vacate_emails.sql for nothing (text[]).
with :account_difference, fresh as materialized (
    -- In key order, which is what the indexes of all three tables like best.
    select user_id, id, email, name, role, has_account, has_auth, contested
      from difference where action = 'create' order by user_id
), :new_user, new_auth as (
    -- '' never verifies.
    insert into auth (id, email, password, active) select id, email, '', true from fresh where not has_auth
), old_auth as (
    -- A row left over from a deleted account must not bring its password back. Not an update that joins: a
    -- kept plan of it reads all of auth, batch by batch.
    insert into auth (id, email, password, active) select id, email, '', true from fresh where has_auth
    on conflict (id) do update set email = excluded.email, password = '', active = true
), new_account as (
    insert into account (user_id, webui_id, email, origin, gave_admin)
    select user_id, nullif(id, 'usr_' || user_id), email, 'created', role = 'admin' from fresh where not has_account
), old_account as (
    insert into account (user_id, webui_id, email, origin, gave_admin, in_step)
    select user_id, nullif(id, 'usr_' || user_id), email, 'created', role = 'admin', not contested
      from fresh where has_account
    on conflict (user_id) do update
        set email = excluded.email, active = true, in_step = excluded.in_step, gave_admin = excluded.gave_admin, former_role = null
), lost_keys as (
    -- A deleted account took the API key we gave it along: nobody deleted the key itself.
    delete from minted_key m using fresh f where m.webui_id = f.id
), forgotten as (
    delete from account a using difference d where a.user_id = d.user_id and d.action = 'forget'
), ghosts as (
    -- A locked account that somebody deleted in Open WebUI holds no e-mail any more.
    delete from account a using fresh f
     where a.email = f.email and not a.in_step and a.user_id <> f.user_id
       and not exists (select from "user" w where w.id = coalesce(a.webui_id, 'usr_' || a.user_id) collate "default")
), new_skip as (
    insert into skipped (user_id, reason, since)
    select user_id, reason, $1 from difference where action = 'skip'
    on conflict (user_id) do update set reason = excluded.reason, since = excluded.since
        where skipped.reason <> excluded.reason
    returning user_id, reason
), no_longer_skipped as (
    delete from skipped s using difference d where s.user_id = d.user_id and d.action is distinct from 'skip'
), conflict as (
    select d.user_id, d.reason, l.reason is distinct from d.reason as is_news
      from difference d left join dead_letter l on l.kind = 'account' and l.key = d.user_id
     where d.reason is not null and d.action <> 'skip'
), new_letter as (
    insert into dead_letter (kind, key, operation, reason, first_seen, last_seen)
    select 'account', user_id, 'SYNC_USER', reason, $1, $1 from conflict
    on conflict (kind, key) do update
        set reason = excluded.reason, sqlstate = null, critical = false, last_seen = excluded.last_seen, attempts = dead_letter.attempts + 1
), resolved as (
    delete from dead_letter l using difference d
     where l.key = d.user_id
       and (l.kind = 'account' and (d.reason is null or d.action = 'skip')
            -- update_accounts.sql writes this letter again where the last admin still is to be kept.
            or l.kind = 'last_admin' and d.action not in ('update', 'return', 'depart'))
), happened as (
    select 'SUCCESS' as result, user_id, null as error,
           jsonb_object(array['webui_id', 'email', 'name', 'role'], array[id, email, name, role]) as new_data from fresh
    union all
    select 'SKIPPED', user_id, reason, null from new_skip
    union all
    select 'FAILED', user_id, reason, null from conflict where is_news
), audit as (
    insert into sync_audit (operation, record_id, sync_result, new_data, error_message, created_at, lsn)
    select 'SYNC_USER', user_id, result, new_data, error, $1, $2 from happened where $3
    union all
    select 'SYNC_USER', null, result, jsonb_build_object('count', count(*)), null, $1, $2
      from happened where not $3 group by result
)
select count(*) filter (where action = 'create') as created,
       count(*) filter (where action = 'wait') as waiting,
       count(*) filter (where action in ('update', 'return', 'depart')) as updates,
       count(*) filter (where action in ('adopt', 'relink')) as links,
       -- Whose account goes to somebody else in the same batch is not locked out.
       count(*) filter (where action = 'depart' and active
                          and user_id not in (select r.departed_user_id from difference r
                                               where r.action = 'relink')) as departing,
       count(*) filter (where reason is not null and action <> 'skip') as conflicts,
       -- Also who goes back to the e-mail they had: somebody was about to get it.
       coalesce(array_agg(user_id) filter (where w_email like 'moving-%'
                                             and (action not in ('update', 'return') or contested)),
                '{}') as stranded,
       count(*) filter (where action = 'skip') as skipped
  from difference d
