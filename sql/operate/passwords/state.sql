-- Why an account cannot be given a password. Runs on: target. $1 an e-mail in lower case (text). Returns a row for each
-- account with it: ours (it is in our ledger), active, waiting (role pending), has_password.
select a.user_id is not null as ours, coalesce(a.active and au.active, false) as active, w.role = 'pending' as waiting,
       coalesce(au.password, '') <> '' as has_password
  from "user" w
  left join auth au on au.id = w.id
  left join account a on coalesce(a.webui_id, 'usr_' || a.user_id) = w.id collate "C"
 where lower(w.email) = $1
