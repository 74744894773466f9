-- Who joins and who leaves which access group: the CTEs shared by the layouts.
-- :people gives accounts, out of $2 (text[]) or all; $3 groups looked at as a whole (text[]): whoever was put there by hand leaves.
-- "wanted", "gone" hold Open WebUI ids; "whole" comes from the layout.
wanted as materialized (
    select g.webui_id as group_id, e.webui_id as user_id
      from :people p(id)
      join effective_access e on e.webui_id = p.id collate "C"
      join access_group g on g.set_hash = e.set_hash
      -- Somebody may have deleted either in Open WebUI since.
      join "group" gg on gg.id = g.webui_id collate "default"
      join "user" w on w.id = e.webui_id collate "default"
), owned as materialized (
    select m.group_id, m.user_id from :people p(id) join access_member m on m.user_id = p.id collate "C"
), gone as materialized (
    (select group_id, user_id from owned
     union
     select group_id collate "C", user_id collate "C" from whole)
    except
    select group_id, user_id from wanted
)
