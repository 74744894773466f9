-- Passwords that a trigger bridge may have made: by pgcrypto, which writes $2a$ where Open WebUI writes $2b$, for accounts
-- with the ids it made. Runs on: target. :before: the e-mail we found with an adopted account w, or NULL where no daemon
-- has run. Returns emails (text[], as they are and as they were), password (a hash), for the caller to try and forget.
select array_remove(array[w.email::text, au.email::text, :before], null) as emails, au.password
  from auth au join "user" w on w.id = au.id
 where au.id like 'usr\_%' and au.password like '$2a$%'
 order by au.id
