-- The next people to mint a key for, out of the temporary table "minting". Runs on: target, after key_difference.sql.
-- $1 the id after which to go on (text), $2 how many (bigint). Returns (id, user_id, newest), in order of id.
select id, user_id, newest from minting where id > $1 order by id limit $2
