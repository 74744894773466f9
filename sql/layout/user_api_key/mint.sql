-- Writes minted keys to user.api_key (Open WebUI before 0.6.43). Runs on: target, after key_difference.sql.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per person (boolean). :waiting gives
-- Open WebUI's id, user id and newest of each: the temporary table minting, or three arrays of one length, $4 to $6
-- (text[]). :new_key makes a key. Returns one row: minted.
with minted as materialized (
    select id, user_id, newest, :new_key as key
      from :waiting as m(id, user_id, newest) order by id
), fresh as materialized (
    select id, user_id, newest, key, sha256(convert_to(key, 'UTF8')) as sha256 from minted order by id
), written as (
    -- Nobody's own key is overwritten, not even one made in this very moment.
    update "user" w set api_key = f.key from fresh f
     where w.id = f.id collate "default"
       and (coalesce(w.api_key, '') = '' or exists (select from litellm_key t where t.token = w.api_key collate "C"))
    returning f.id, f.user_id, f.newest, f.sha256
), :mint_books
select count(*) as minted from written
