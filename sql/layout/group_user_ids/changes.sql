-- What becomes of group.user_ids: the CTEs that both kinds of groups share (members.sql, access_members.sql). "wanted" and "gone"
-- come from the difference before them. $1 now (timestamptz).
--
-- The array is rebuilt from the row as it is under its lock: other people's entries stay, each id
-- stands in it once (a repeated one stops Open WebUI's own upgrade), and it stays an array.
listed as materialized (
    -- Each document is taken apart once: a question per member would read it as often as it has members.
    select g.id as group_id, m.id as user_id
      from "group" g cross join json_array_elements_text(
               case when json_typeof(g.user_ids) = 'array' then g.user_ids else '[]' end) m(id)
     where g.id in (select group_id collate "default" from wanted) and m.id is not null
), missing as materialized (
    select w.group_id, w.user_id
      from wanted w join "group" g on g.id = w.group_id collate "default"
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
)
