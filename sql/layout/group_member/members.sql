-- Brings group_member in line (Open WebUI 0.6.37 and newer). Runs on: target, after the groups.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per group (boolean; else a summary).
-- Returns one row: added, removed, stripped (people left without any group of ours, as hashes).
with :member_difference, removed as (
    delete from group_member gm using gone g
     where gm.group_id = g.group_id collate "default" and gm.user_id = g.user_id collate "default"
), disowned as (
    delete from member m using gone g where m.group_id = g.group_id and m.user_id = g.user_id
), added as (
    insert into group_member (id, group_id, user_id, created_at, updated_at)
    select w.group_id || ':' || w.user_id, w.group_id, w.user_id, at, at
      from wanted w, (select extract(epoch from $1)::bigint as at) t
     where not exists (select from group_member gm
                        where gm.group_id = w.group_id collate "default" and gm.user_id = w.user_id collate "default")
     order by 2, 3
    on conflict (group_id, user_id) do nothing
    returning group_id, user_id
), owned_now as (
    insert into member (group_id, user_id) select group_id, user_id from added on conflict do nothing
), happened as (
    select group_id, count(*) filter (where is_new) as added, count(*) filter (where not is_new) as removed
      from (select group_id::text collate "C" as group_id, true as is_new from added
             union all
            select group_id, false from gone) c
     group by group_id
), audit as (
    :member_audit
)
select (select count(*) from added) as added, (select count(*) from gone) as removed,
       coalesce((select array_agg(hashtextextended(user_id, 0)) from stripped), '{}') as stripped
