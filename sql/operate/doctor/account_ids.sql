-- Whose account is called by LiteLLM's user_id, and whose is not. Runs on: target. Returns one row: plain, others.
select count(*) filter (where coalesce(webui_id, 'usr_' || user_id) = user_id) as plain,
       count(*) filter (where coalesce(webui_id, 'usr_' || user_id) <> user_id) as others
  from account where active
