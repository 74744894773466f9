-- Passwords that a trigger bridge may have made: by pgcrypto, which writes $2a$ where Open WebUI writes $2b$, for accounts
-- with the ids it made. Runs on: target. Returns email, password (a hash), for the caller to try and forget.
select w.email::text as email, au.password
  from auth au join "user" w on w.id = au.id
 where au.id like 'usr\_%' and au.password like '$2a$%' and w.email is not null
 order by au.id
