-- The windows of users with a budget, as of the checkpoint. Runs on: target.
select user_id, has_spent, resets_at from chat_window
