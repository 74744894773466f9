-- Brings the members of access groups in line (group.user_ids; Open WebUI before 0.6.37). Runs on: target, after the groups.
-- $1 now (timestamptz), $2 and $3 see access_member_difference.sql. :changes is
-- changes.sql. Returns one row: added, removed.
with whole as materialized (
    select g.id as group_id, m.id as user_id
      from "group" g cross join json_array_elements_text(
               case when json_typeof(g.user_ids) = 'array' then g.user_ids else '[]' end) m(id)
     where g.id = any ($3)
), :access_member_difference, :changes, disowned as (
    delete from access_member m using gone g where m.group_id = g.group_id and m.user_id = g.user_id
), owned_now as (
    insert into access_member (group_id, user_id)
    select group_id, user_id from wanted except select group_id, user_id from owned
    on conflict do nothing
)
select (select count(*) from missing) as added, (select count(*) from gone) as removed
