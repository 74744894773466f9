-- Removes the members we added from group_member, and no others. Runs on: target, in a purge, before the groups.
delete from group_member gm using member m
 where gm.group_id = m.group_id collate "default" and gm.user_id = m.user_id collate "default"
