-- A piece as given.sql, for many of all there are: of an array alone the planner believes that each of its ids is there many times, and would hash
-- what is looked up, and not the ids.
select distinct id from unnest($1::text[]) g(id)
