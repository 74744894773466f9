-- Nothing: the members of a group stand in its own row and go with it. A piece of sql/layout/*/purge.sql.
select
