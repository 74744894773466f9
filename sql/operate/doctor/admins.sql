-- How many admins can sign in to Open WebUI. Runs on: target, where Open WebUI has its tables. Returns one row: admins.
select count(*) as admins from "user" w join auth au on au.id = w.id where w.role = 'admin' and au.active
