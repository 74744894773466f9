-- Under whom LiteLLM books what people chat, as far as its rows say. Runs on: source. :user_table and :customer_table are LiteLLM's.
-- Returns one row: customers, those of them who are called like a user's e-mail (people).
select count(*) as customers,
       count(*) filter (where exists (select from :user_table u where lower(btrim(u.user_email)) = lower(btrim(c.user_id)))) as people
  from :customer_table c
