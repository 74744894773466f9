-- Notes how Open WebUI's tables are, in temporary tables :note_account and so on (was_… before, is_… after the
-- projection). Runs on: target, in the session of a plan. :members_of, :keys_of and :grants_of are queries of this layout,
-- :is_public a condition of it on m, a row of model.
create temporary table :note_account as
select w.id, w.name, w.email, w.role, coalesce(au.active, false) as active from "user" w left join auth au on au.id = w.id;
create temporary table :note_group as select id, name from "group";
create temporary table :note_member as :members_of;
create temporary table :note_key as :keys_of;
create temporary table :note_model as select m.id, m.is_active, :is_public as is_public from model m;
create temporary table :note_grant as :grants_of;
analyze :note_account; analyze :note_group; analyze :note_member; analyze :note_key; analyze :note_model; analyze :note_grant
