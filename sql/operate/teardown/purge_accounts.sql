-- Undoes our accounts. Runs on: target, after our groups and members are gone.
-- $1 whether accounts with chats are deleted too (boolean; else they are locked).
-- Adopted accounts get back the name, role, active flag and spelling of the e-mail they had; another e-mail only while
-- it is free. Returns one row: deleted, locked, restored.
with ours as materialized (
    select coalesce(a.webui_id, 'usr_' || a.user_id) as id, a.origin, a.before,
           exists (select from chat c where c.user_id = coalesce(a.webui_id, 'usr_' || a.user_id) collate "default") as has_chats,
           not exists (select from "user" e
                        where lower(e.email) = lower(a.before ->> 'email') collate "default"
                          and e.id <> coalesce(a.webui_id, 'usr_' || a.user_id) collate "default") as is_free
      from account a
), doomed as (
    select id from ours where origin = 'created' and ($1 or not has_chats)
), locked as (
    select id from ours where origin = 'created' and not $1 and has_chats
), deleted_auth as (
    delete from auth au using doomed d where au.id = d.id collate "default"
), deleted_user as (
    delete from "user" w using doomed d where w.id = d.id collate "default" returning 1
), locked_auth as (
    update auth au set active = false from locked l where au.id = l.id collate "default"
), locked_user as (
    update "user" w set role = 'pending' from locked l where w.id = l.id collate "default" returning 1
), restored_auth as (
    update auth au set active = coalesce((o.before ->> 'active')::boolean, true),
           email = case when o.is_free then coalesce(o.before ->> 'auth_email', au.email) else au.email end
      from ours o where o.origin = 'adopted' and au.id = o.id collate "default"
), restored_user as (
    update "user" w set name = coalesce(o.before ->> 'name', w.name), role = coalesce(o.before ->> 'role', w.role),
           email = case when o.is_free then coalesce(o.before ->> 'email', w.email) else w.email end
      from ours o where o.origin = 'adopted' and w.id = o.id collate "default" returning 1
)
select (select count(*) from deleted_user) as deleted, (select count(*) from locked_user) as locked,
       (select count(*) from restored_user) as restored
