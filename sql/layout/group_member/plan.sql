-- Who is in which group (group_member). A piece of operate/plan/note.sql.
select distinct group_id::text as group_id, user_id::text as user_id from group_member
