-- What is to be done about each touched person's account: the CTEs shared by the statements that do it.
-- :users gives the LiteLLM user ids, :email_holder is the CTE of sql/layout/*/holder.sql.
-- $4 people who cannot get the e-mail they want (text[]), so that nobody waits for theirs; $5 whether every e-mail
-- that will be freed is free by now (boolean): who still has to wait then gets a dead letter.
-- One row per person in "difference"; its column action says what is to be done:
--   create   insert user and auth             adopt   take over the account with this e-mail
--   update   name, e-mail or role differ      relink  a departed account belongs to this person now
--   return   unlock a locked account          depart  lock the account
--   wait     the e-mail is still held by one of ours that moves away in this very batch
--   conflict no account, a dead letter        skip    gets no account (reason)
--   forget   somebody deleted the account in Open WebUI, and nobody wants it           same  nothing
-- Whoever has an account but cannot get the e-mail they want keeps the one they have: a dead letter (reason), while
-- name and role follow all the same.
candidate as materialized (
    select t.user_id, d.user_id is not null as wanted, d.email, d.name, d.role,
           a.user_id is not null as has_account,
           coalesce(a.webui_id, case
               when a.user_id is not null then 'usr_' || a.user_id
               when exists (select from account o where o.webui_id = t.new_id) then webui_second_id(t.user_id)
               else t.new_id end) as id,
           a.email as held_email, a.active, a.in_step, a.gave_admin, a.former_role,
           -- Whoever has the e-mail already need not be looked for. Has: in Open WebUI, whatever our ledger says.
           case when d.user_id is not null
                     and (a.user_id is null or a.email <> d.email or h.id is null or lower(h.email) <> d.email collate "default")
                then d.email end as claim
      from (select id as user_id,
                   case when (select plain_ids from policy) then webui_plain_id(id) else webui_user_id(id) end as new_id
              from :users as given(id)) t
      left join desired_account d on d.user_id = t.user_id
      left join account a on a.user_id = t.user_id
      left join "user" h on h.id = coalesce(a.webui_id, 'usr_' || a.user_id) collate "default"
), :email_holder, compared as (
    select c.*,
           w.id is not null as has_user, w.name as w_name, w.email as w_email, w.role as w_role,
           au.id is not null as has_auth, au.email as auth_email, au.active as auth_active,
           e.id as email_id, e.role as email_role, coalesce(by_id.user_id, by_user.user_id) as email_owner,
           departed.user_id as departed_user_id,
           coalesce(departed.webui_id, 'usr_' || departed.user_id) as departed_id,
           -- A trigger bridge wrote LiteLLM's id into the row with the id made of it. Nobody can choose the id of their account.
           not c.has_account and w.id is not null
               and coalesce(position('"original_user_id":' || replace(to_json(c.user_id)::text, ' ', '')
                                     in replace(to_jsonb(w) ->> 'info', ' ', '')) > 0, false) as is_bridged
      from candidate c
      left join "user" w on w.id = c.id collate "default"
      left join auth au on au.id = c.id collate "default"
      left join email_holder e on e.email = c.claim collate "default" and e.id <> c.id collate "default"
      left join account by_id on by_id.webui_id = e.id collate "C"
      left join account by_user on by_user.webui_id is null
                               and by_user.user_id = case when e.id like 'usr\_%' then substr(e.id, 5) end collate "C"
      left join (select h.user_id, h.webui_id, h.email from account h
                  where not h.in_step
                    and not exists (select from person p
                                     where p.user_id = h.user_id and p.unusable_because is null)
                    and exists (select from "user" hw
                                 where hw.id = coalesce(h.webui_id, 'usr_' || h.user_id) collate "default")
                    and not exists (select from account h2
                                     where h2.email = h.email and not h2.in_step and h2.user_id < h.user_id)) departed
             on not c.has_account and departed.email = c.claim
), weighed as (
    select c.*,
           -- Will whoever of ours holds the e-mail leave it: for another one, or because the account is locked?
           email_owner is not null and not $5 and email_owner <> all ($4)
               and (exists (select from desired_account o where o.user_id = c.email_owner and o.email <> c.email)
                    or not exists (select from person o join account oa using (user_id)
                                    where o.user_id = c.email_owner and o.unusable_because is null and oa.active))
               as may_wait,
           -- A person with an active account whose e-mail somebody else has a better claim to.
           not wanted and has_account and active
               and exists (select from person p where p.user_id = c.user_id and p.unusable_because is null) as outdone
      from compared c offset 0
), settled as (
    select c.user_id, c.wanted, c.has_account, c.id, c.held_email, c.active, c.in_step, c.gave_admin, c.former_role,
           c.has_user, c.w_name, c.w_email, c.w_role, c.has_auth, c.auth_email, c.auth_active,
           c.email_id, c.email_role, c.email_owner, c.departed_user_id, c.departed_id, c.may_wait, c.is_bridged,
           contested,
           -- Where somebody changed it in Open WebUI, the one they hold is that one ("moving-": our own doing, of this batch).
           case when not contested then email
                when w_email is null or w_email like 'moving-%' then held_email
                else lower(w_email) collate "C" end as email,
           case when contested then
                    -- Made of the e-mail they wanted: of the one they have, then.
                    (select case when p.name = left(split_part(p.email, '@', 1), 255)
                                 then left(split_part(c.held_email, '@', 1), 255) else p.name end
                       from profile p where p.user_id = c.user_id)
                else name end as name,
           case when outdone then (select p.role from profile p where p.user_id = c.user_id) else role end as role
      from (select w.*, outdone or (wanted and has_account and has_user and active and email_id is not null and not may_wait)
                       as contested from weighed w) c
     -- Keeps the planner from writing the conditions above once more wherever their result is used.
    offset 0
), judged as (
    select c.*,
           case
               when wanted and not has_account then case
                   when departed_user_id is not null then
                       case when relink then 'relink' else 'conflict' end
                   when email_owner is not null then case when may_wait then 'wait' else 'conflict' end
                   when email_id is not null then
                       case when account_adopt and (email_role <> 'admin' or adopt_admins)
                            then 'adopt' else 'conflict' end
                   when has_user then
                       -- The account we would make is there already: made by a trigger bridge for this very person, or kept from
                       -- an earlier life, with the same e-mail. Unless it went to somebody else of ours with its e-mail.
                       case when not exists (select from account o where o.webui_id = c.id)
                                 and (is_bridged
                                      or lower(w_email) = email collate "default" and account_adopt
                                         and (w_role <> 'admin' or adopt_admins))
                            then 'adopt' else 'conflict' end
                   else 'create'
               end
               -- Somebody deleted the account in Open WebUI, and somebody registered its e-mail there again.
               when wanted and not has_user and email_id is not null then case
                   when email_owner is not null then case when may_wait then 'wait' else 'conflict' end
                   when account_adopt and (email_role <> 'admin' or adopt_admins) then 'adopt'
                   else 'conflict'
               end
               when wanted or contested then case
                   when not contested and email_id is not null then case when may_wait then 'wait' else 'conflict' end
                   when not has_user then 'create'
                   when not active then 'return'
                   when (w_name, w_email, auth_email, held_email, in_step)
                            is distinct from (name, email, email, email, not contested) then 'update'
                   -- Somebody an Open WebUI admin set to pending stays so.
                   when w_role = 'pending' then 'same'
                   when role = 'admin' and w_role <> 'admin' then 'update'
                   when role = 'user' and w_role = 'admin' and (gave_admin or demote_always) then 'update'
                   when w_role not in ('admin', 'user') then 'update'
                   else 'same'
               end
               when has_account then case
                   when not has_user then 'forget'
                   when active or auth_active or w_role <> 'pending' then 'depart'
                   -- Back, with an e-mail that somebody else has by now: locked until it is free.
                   when exists (select from person p where p.user_id = c.user_id and p.unusable_because is null)
                   then 'conflict'
                   else 'same'
               end
               else (select case when p.unusable_because is null then 'conflict' else 'skip' end
                       from person p where p.user_id = c.user_id)
           end as action
      from settled c cross join policy offset 0
), difference as materialized (
    select user_id, has_account, has_user, id, email, name, role, held_email, active, gave_admin, former_role, contested,
           w_name, w_email, w_role, has_auth, auth_active, departed_user_id, action, is_bridged,
           case action when 'adopt' then coalesce(email_id, id) when 'relink' then departed_id else id end as target_id,
           case
               when action = 'skip' then
                   (select p.unusable_because from person p where p.user_id = j.user_id)
               when action is distinct from 'conflict' and not contested then null
               when not wanted then 'another LiteLLM user has a better claim to the e-mail'
               when departed_user_id is not null then
                   'the e-mail belongs to a locked account and accounts.relink is "skip"'
               when email_owner is not null then 'the e-mail is held by another account of ours'
               when email_id is not null and has_account and has_user then
                   'the new e-mail belongs to an Open WebUI account we do not own'
               when email_id is not null and email_role = 'admin' then
                   'the e-mail belongs to an Open WebUI admin (accounts.adopt_admins is off)'
               when email_id is not null then
                   'the e-mail belongs to an Open WebUI account and accounts.adopt is "skip"'
               else 'the account id is taken by another Open WebUI account'
           end as reason
      from judged j
)
