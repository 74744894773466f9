-- The counts that gauges show. Runs on: target. Returns dead letters, the critical ones, skipped people, active accounts,
-- people whom a used-up budget takes models from.
select (select count(*) from dead_letter), (select count(*) from dead_letter where critical),
       (select count(*) from skipped), (select count(*) from account where active),
       -- Nearly always nobody's: and the planner takes a table that is empty for one of some hundred rows.
       case when exists (select from budget_closed)
            then (select count(distinct user_id) from budget_person join account using (user_id) where active) else 0 end
