-- A piece of of_people.sql and the like: the people of $1 (text[]).
select id from unnest($1::text[]) g(id)
