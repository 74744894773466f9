-- Takes the members we added out of group.user_ids, and no others. Runs on: target, in a purge, before the groups.
update "group" g set user_ids = webui_user_ids(g.user_ids, '{}', l.ids)
  from (select group_id, array_agg(user_id) as ids from member group by group_id) l
 where g.id = l.group_id collate "default"
