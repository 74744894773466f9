-- How many people a used-up budget takes models from. Runs on: target, and only where a budget is used up: it reads the mirror.
select count(distinct user_id) from budget_person join account using (user_id) where active
