-- How many of LiteLLM's users share an e-mail with somebody, before a first copy. Runs on: source. :user_table is LiteLLM's.
-- Returns one row: people.
select coalesce(sum(people), 0)::bigint as people
  from (select count(*) as people from :user_table
         where btrim(user_email) <> '' group by lower(btrim(user_email)) having count(*) > 1) shared
