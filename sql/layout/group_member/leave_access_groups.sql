-- Empties the access groups that are removed. A piece of sql/layout/*/purge.sql.
delete from group_member gm using access_group g where gm.group_id = g.webui_id collate "default"
