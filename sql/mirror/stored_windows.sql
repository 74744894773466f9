-- When the windows of users with a budget ended, as of the checkpoint. Runs on: target.
select user_id, resets_at from chat_window
