-- Who gets a personal API key and who loses theirs. Does everything but the minting. Runs on: target, after the
-- accounts are there. $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per person (boolean; else a
-- summary); :key_owners gives LiteLLM user ids. :held_keys is the CTE "holding" and :delete_keys the CTE "deleted" of
-- this layout (sql/layout/*/held.sql, delete.sql). :key_states is key_states_of_one.sql or key_states_of_all.sql. Who is to get a key is returned, or where that may be too many (:in_memory is
-- false) left in the temporary table "minting" by :mint_later.
-- Returns one row: deleted, unkeyed (active people whose key LiteLLM took back, not the clock, as hashes), and three arrays
-- of one length with those to mint for: ids (of Open WebUI), user_ids, newest.
--
-- A person has a key of ours while one of their LiteLLM keys is usable, unless they have one of their own. One of ours
-- that they deleted is not made again until LiteLLM has a newer key for them than when we last saw ours.
with given as materialized (
    select id as user_id from :key_owners as g(id)
), owner as materialized (
    select a.user_id, coalesce(a.webui_id, 'usr_' || a.user_id) as id, n.newest, n.has_expired,
           m.sha256, m.newest as seen, w.id is not null as has_user
      from given g
      join account a on a.user_id = g.user_id
     :key_states
      left join minted_key m on m.webui_id = coalesce(a.webui_id, 'usr_' || a.user_id)
      left join "user" w on w.id = coalesce(a.webui_id, 'usr_' || a.user_id) collate "default"
     where n.newest is not null or m.webui_id is not null
), :held_keys, judged as materialized (
    select h.user_id, h.id, h.newest, h.has_expired, h.sha256, h.row_id,
           case
               when not h.has_user then 'forget'
               when h.present then case when h.newest is null then 'delete'
                                        when h.newest > h.seen then 'see' else 'same' end
               when h.newest is null or h.occupied then 'same'
               when h.sha256 is null or h.newest > h.seen then 'mint'
               else 'same'
           end as action
      from holding h
), doomed as materialized (
    select user_id, id, row_id, sha256, has_expired from judged where action = 'delete'
), :delete_keys, disowned as (
    delete from minted_key m using judged j where m.webui_id = j.id and j.action in ('delete', 'forget')
), seen as (
    update minted_key m set newest = j.newest from judged j where m.webui_id = j.id and j.action = 'see'
), resolved as (
    delete from dead_letter l where l.kind = 'api_key' and (l.key in (select user_id from given)) is true
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, new_data, created_at, lsn)
    select 'DELETE_API_KEY', user_id, 'SUCCESS', jsonb_build_object('webui_id', id), null::jsonb, $1, $2
      from doomed where $3
    union all
    select case action when 'mint' then 'SYNC_API_KEY' else 'DELETE_API_KEY' end, null, 'SUCCESS', null,
           jsonb_build_object('count', count(*)), $1, $2
      from judged where not $3 and action in ('mint', 'delete') group by action
):mint_later
select (select count(*) from doomed) as deleted,
       coalesce((select array_agg(hashtextextended(d.id, 0)) from doomed d join person p on p.user_id = d.user_id
                  where p.unusable_because is null and d.has_expired is not true), '{}') as unkeyed,
       coalesce(array_agg(id order by id), '{}') as ids,
       coalesce(array_agg(user_id order by id), '{}') as user_ids,
       coalesce(array_agg(newest order by id), '{}') as newest
  from judged where action = 'mint' and :in_memory
