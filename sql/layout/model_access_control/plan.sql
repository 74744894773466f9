-- Who may read which model (model.access_control). A piece of operate/plan/note.sql.
select distinct m.id::text as model_id, p.type as principal_type, e.id as principal_id
  from model m
 cross join (values ('user', 'user_ids'), ('group', 'group_ids')) p(type, field)
 cross join json_array_elements_text(
           case when json_typeof(m.access_control -> 'read' -> p.field) = 'array'
                then m.access_control -> 'read' -> p.field else '[]' end) e(id)
 where e.id is not null
