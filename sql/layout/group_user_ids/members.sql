-- Brings group.user_ids in line (Open WebUI before 0.6.37). Runs on: target, after the groups.
-- $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per group (boolean; else a summary).
-- Returns one row: added, removed, stripped (people left without any group of ours, as hashes). :changes is changes.sql.
with :member_difference, :changes, disowned as (
    delete from member m using gone g where m.group_id = g.group_id and m.user_id = g.user_id
), owned_now as (
    insert into member (group_id, user_id) select group_id, user_id from missing on conflict do nothing
), happened as (
    select group_id, cardinality(joining) as added, cardinality(leaving) as removed from per_group
), audit as (
    :member_audit
)
select (select count(*) from missing) as added, (select count(*) from gone) as removed,
       coalesce((select array_agg(hashtextextended(user_id, 0)) from stripped), '{}') as stripped
