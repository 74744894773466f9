-- Who may read which model (access_grant). A piece of operate/plan/note.sql.
select distinct resource_id as model_id, principal_type, principal_id
  from access_grant where resource_type = 'model' and permission = 'read' and principal_id <> '*'
