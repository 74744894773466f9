-- What the chats of people with a budget came to, as of the checkpoint. Runs on: target.
select customer_id, spend, counted_from, resets_at from chat_spend
