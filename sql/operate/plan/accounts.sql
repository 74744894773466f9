-- What becomes of Open WebUI's accounts: before (was_account) against after (is_account). Runs on: target, in the session
-- of a plan. Returns action, user_id, webui_id, email, name, role, and what differs of old_email, old_name, old_role.
-- adopt: found with the person's e-mail, or with the id we would give it; link: it was another person's before.
with ledger as materialized (
    select coalesce(a.webui_id, 'usr_' || a.user_id) as id, a.user_id, a.origin,
           was.user_id is null as is_new, was.user_id <> a.user_id as is_other, was.active as was_active, a.active
      from account a
      left join was_ledger was on was.id = coalesce(a.webui_id, 'usr_' || a.user_id)
), compared as (
    select i.id, l.user_id, i.email, i.name, i.role, w.email as old_email, w.name as old_name, w.role as old_role,
           case
               when w.id is null then 'create'
               when l.is_new and l.origin = 'adopted' then 'adopt'
               when l.is_other then 'link'
               when i.role = 'pending' and not i.active and (w.role <> 'pending' or w.active) then 'lock'
               when l.active and not l.was_active then 'unlock'
               when (i.email, i.name, i.role, i.active) is distinct from (w.email, w.name, w.role, w.active) then 'update'
           end as action
      from is_account i
      left join was_account w on w.id = i.id
      left join ledger l on l.id = i.id collate "C"
)
select action, user_id, id::text as webui_id, email::text as email, name::text as name, role::text as role,
       case when old_email is distinct from email then old_email::text end as old_email,
       case when old_name is distinct from name then old_name::text end as old_name,
       case when old_role is distinct from role then old_role::text end as old_role
  from compared where action is not null
 order by email collate "C", id
