-- Who is in which group (group.user_ids). A piece of operate/plan/note.sql.
select distinct g.id::text as group_id, e.id as user_id
  from "group" g
 cross join json_array_elements_text(case when json_typeof(g.user_ids) = 'array' then g.user_ids else '[]' end) e(id)
 where e.id is not null
