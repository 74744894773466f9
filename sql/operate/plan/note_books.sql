-- Notes what our books say before the projection. Runs on: target, in the session of a plan.
create temporary table was_ledger as
select coalesce(webui_id, 'usr_' || user_id) as id, user_id, active from account;
create temporary table was_known_group as
select kind, webui_id as id from group_link union all select 'models', webui_id from access_group
