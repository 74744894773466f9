-- Whether Open WebUI has an admin. Runs on: target.
select exists (select from "user" where role = 'admin')
