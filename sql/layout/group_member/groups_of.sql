-- The groups of account $1 (text). A piece of sql/layout/*/sees.sql.
select gm.group_id from group_member gm where gm.user_id = $1
