-- Accounts of ours that have no password and could use one: active, not waiting for an Open WebUI admin. Runs on: target.
-- $1 one person's e-mail in lower case (text; NULL: everybody). Returns webui_id, user_id, email.
select w.id::text as webui_id, a.user_id, w.email::text as email
  from account a
  join "user" w on w.id = coalesce(a.webui_id, 'usr_' || a.user_id) collate "default"
  join auth au on au.id = w.id
 where a.active and au.active and w.role <> 'pending' and coalesce(au.password, '') = ''
   and ($1::text is null or lower(w.email) = $1)
 order by 3, 1
