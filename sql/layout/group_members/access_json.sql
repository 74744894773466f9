-- Brings the members of access groups in line (group.user_ids; Open WebUI before 0.6.37). Runs on: target, after the groups.
-- $1 now (timestamptz), $2 and $3 see access_member_difference.sql. Returns one row: added, removed.
with whole as materialized (
    select g.id as group_id, m.id as user_id
      from "group" g cross join json_array_elements_text(
               case when json_typeof(g.user_ids) = 'array' then g.user_ids else '[]' end) m(id)
     where g.id = any ($3)
), :access_member_difference, listed as materialized (
    -- Each document is taken apart once: a question per member would read it as often as it has members.
    select g.id as group_id, m.id as user_id
      from "group" g cross join json_array_elements_text(
               case when json_typeof(g.user_ids) = 'array' then g.user_ids else '[]' end) m(id)
     where g.id in (select group_id collate "default" from wanted) and m.id is not null
), missing as materialized (
    select w.group_id, w.user_id from wanted w
     where (w.group_id collate "default", w.user_id collate "default") not in (select group_id, user_id from listed)
), per_group as materialized (
    select group_id,
           coalesce(array_agg(user_id) filter (where is_new), '{}') as joining,
           coalesce(array_agg(user_id) filter (where not is_new), '{}') as leaving
      from (select group_id, user_id, true as is_new from missing
             union all
            select group_id, user_id, false from gone) c
     group by group_id
), written as (
    update "group" g
       set user_ids = webui_user_ids(g.user_ids, p.joining, p.leaving), updated_at = extract(epoch from $1)::bigint
      from per_group p where g.id = p.group_id collate "default"
), disowned as (
    delete from access_member m using gone g where m.group_id = g.group_id and m.user_id = g.user_id
), owned_now as (
    insert into access_member (group_id, user_id) select group_id, user_id from wanted on conflict do nothing
)
select (select count(*) from missing) as added, (select count(*) from gone) as removed
