-- The organizations of the people of $1 (text[]), each person's in order. Runs on: target.
select user_id, organization_id, models, budget_closed from access_organization where user_id = any ($1) order by 1, 2
