-- Undoes our accounts. Runs on: target, after our groups and members are gone. $1 whether accounts that own something are deleted
-- too (boolean; else they are locked). :things gives the owners of anything (user_id), see things.sql.
-- Adopted accounts get back the name and the spelling of the e-mail they had, another e-mail only while it is free; and the role, where
-- it is one we gave or took. Whoever is locked because they left LiteLLM stays so, and whom an admin of Open WebUI set to pending.
-- Open WebUI keeps one admin who can sign in: nobody else could make one.
-- Returns one row: deleted, locked, restored, kept (an admin).
with ours as materialized (
    select coalesce(a.webui_id, 'usr_' || a.user_id) as id, a.origin, a.before, a.active, a.gave_admin,
           coalesce(a.webui_id, 'usr_' || a.user_id) in (select t.user_id collate "C" from (:things) t) as has_things,
           not exists (select from "user" e
                        where lower(e.email) = lower(a.before ->> 'email') collate "default"
                          and e.id <> coalesce(a.webui_id, 'usr_' || a.user_id) collate "default") as is_free
      from account a
), planned as materialized (
    select o.id, o.origin, o.before, o.active, o.is_free, w.role, w.created_at, au.active as auth_active,
           case when o.origin = 'created' then case when $1 or not o.has_things then 'delete' else 'lock' end
                else 'restore' end as action,
           case
               when not o.active or w.role = 'pending' then w.role
               when o.gave_admin and o.before ->> 'role' is distinct from 'admin' then coalesce(o.before ->> 'role', 'user') collate "default"
               when o.before ->> 'role' = 'admin' and w.role = 'user' then 'admin'
               else w.role
           end as former_role
      from ours o
      join "user" w on w.id = o.id collate "default"
      left join auth au on au.id = w.id
), kept as materialized (
    -- The oldest, where no admin would be left who can sign in.
    select id from planned
     where role = 'admin' and auth_active
       and not exists (select from "user" w join auth au on au.id = w.id
                        where w.role = 'admin' and au.active
                          and w.id collate "C" not in (select p.id from planned p
                                                        where p.action <> 'restore' or p.former_role <> 'admin'))
     order by created_at, id limit 1
), doomed as (
    select id from planned where action = 'delete' and id not in (select id from kept)
), locked as (
    select id from planned where action = 'lock' and id not in (select id from kept)
), restored as (
    select * from planned where action = 'restore'
), deleted_auth as (
    delete from auth au using doomed d where au.id = d.id collate "default"
), deleted_user as (
    delete from "user" w using doomed d where w.id = d.id collate "default" returning 1
), locked_auth as (
    update auth au set active = false from locked l where au.id = l.id collate "default"
), locked_user as (
    update "user" w set role = 'pending' from locked l where w.id = l.id collate "default" returning 1
), restored_auth as (
    update auth au
       set active = case when r.active then au.active and coalesce((r.before ->> 'active')::boolean, true) else au.active end,
           email = case when r.is_free then coalesce(r.before ->> 'auth_email', au.email) else au.email end
      from restored r where au.id = r.id collate "default" and r.id not in (select id from kept)
), restored_user as (
    update "user" w
       set name = coalesce(r.before ->> 'name', w.name),
           role = case when r.id in (select id from kept) then w.role else r.former_role end,
           email = case when r.is_free then coalesce(r.before ->> 'email', w.email) else w.email end
      from restored r where w.id = r.id collate "default" returning 1
)
select (select count(*) from deleted_user) as deleted, (select count(*) from locked_user) as locked,
       (select count(*) from restored_user) as restored, (select id from kept) as kept
