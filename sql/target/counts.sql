-- The counts that gauges show. Runs on: target. Returns dead letters, the critical ones, skipped people, active accounts,
-- whether a budget is used up.
select (select count(*) from dead_letter), (select count(*) from dead_letter where critical),
       (select count(*) from skipped), (select count(*) from account where active),
       exists (select from budget_closed)
