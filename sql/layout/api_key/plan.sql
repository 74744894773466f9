-- Who has which API key, hashed (table api_key). A piece of operate/plan/note.sql.
select user_id::text as user_id, sha256(convert_to(key, 'UTF8')) as sha256 from api_key where user_id is not null
