-- Writes minted keys to table api_key (Open WebUI 0.6.43 and newer). Runs on: target, after key_difference.sql.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per person (boolean). :waiting gives
-- Open WebUI's id, user id and newest of each: the temporary table minting, or three arrays of one length, $4 to $6
-- (text[]). :new_key makes a key. Returns one row: minted.
with minted as materialized (
    select id, user_id, newest, :new_key as key
      from :waiting as m(id, user_id, newest)
), fresh as materialized (
    select id, user_id, newest, key, sha256(convert_to(key, 'UTF8')) as sha256 from minted
), inserted as (
    -- A person who made one in this very moment is a conflict of ids; trying again finds theirs.
    insert into api_key (id, user_id, key, created_at, updated_at)
    select 'key_' || id, id, key, at, at from fresh, (select extract(epoch from $1)::bigint as at) t order by id
), written as (
    select id, user_id, newest, sha256 from fresh
), :mint_books
select count(*) as minted from written
