-- How many of everything there is, for `status`. Runs on: target. Returns active accounts, locked accounts, groups, members.
select (select count(*) from account where active), (select count(*) from account where not active),
       (select count(*) from group_link where present), (select count(*) from member)
