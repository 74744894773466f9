-- How many of everything there is, for `status` and the status page. Runs on: target. Returns active accounts, locked
-- accounts, groups, members, groups of organizations, groups of teams, whether a budget is used up.
select (select count(*) from account where active), (select count(*) from account where not active),
       (select count(*) from group_link where present), (select count(*) from member),
       (select count(*) from group_link where present and kind = 'organization'),
       (select count(*) from group_link where present and kind = 'team'),
       exists (select from budget_closed)
