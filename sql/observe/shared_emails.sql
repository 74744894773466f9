-- How many e-mails several accounts of Open WebUI have, in whatever case: before 0.11.0 nothing keeps them apart, sign-in takes one
-- of them, and the migration to 0.11.0 refuses to start. Runs on: target. Returns one row: emails (bigint).
select count(*) as emails from (select from "user" group by lower(email) having count(*) > 1) shared
