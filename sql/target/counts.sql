-- The counts that gauges show. Runs on: target. Returns dead letters, the critical ones, skipped people, active accounts.
select (select count(*) from dead_letter), (select count(*) from dead_letter where critical),
       (select count(*) from skipped), (select count(*) from account where active)
