-- Who has which API key, hashed (user.api_key). A piece of operate/plan/note.sql.
select id::text as user_id, sha256(convert_to(api_key, 'UTF8')) as sha256 from "user" where api_key <> ''
