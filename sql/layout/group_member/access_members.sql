-- Brings the members of access groups in line (group_member; Open WebUI 0.6.37 and newer). Runs on: target, after the groups.
-- $1 now (timestamptz), $2 and $3 see access_member_difference.sql. :one_by_one is "offset 0" where it is about some people: the
-- planner would read all members of all groups. Returns one row: added, removed.
with whole as materialized (
    select gm.group_id, gm.user_id from group_member gm where gm.group_id = any ($3)
), :access_member_difference, removed as (
    delete from group_member gm using gone g
     where gm.group_id = g.group_id collate "default" and gm.user_id = g.user_id collate "default"
), disowned as (
    delete from access_member m using gone g where m.group_id = g.group_id and m.user_id = g.user_id
), missing as materialized (
    select w.group_id, w.user_id from wanted w
     where not exists (select from group_member gm
                        where gm.group_id = w.group_id collate "default" and gm.user_id = w.user_id collate "default" :one_by_one)
), added as (
    insert into group_member (id, group_id, user_id, created_at, updated_at)
    select group_id || ':' || user_id, group_id, user_id, at, at
      from missing, (select extract(epoch from $1)::bigint as at) t order by 2, 3
    on conflict (group_id, user_id) do nothing
), owned_now as (
    insert into access_member (group_id, user_id)
    select group_id, user_id from wanted except select group_id, user_id from owned
    on conflict do nothing
)
select (select count(*) from missing) as added, (select count(*) from gone) as removed
