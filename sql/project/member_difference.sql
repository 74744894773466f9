-- Who joins and who leaves which group: the CTEs shared by the layouts. Our members only.
-- :group_people, :teams, :organizations give the touched LiteLLM ids. "missing" and "gone" hold Open WebUI ids.
-- "in_group" says who is in which group now and comes from the layout.
touched_account as materialized (
    select coalesce(a.webui_id, 'usr_' || a.user_id) as id, a.user_id
      from (select id as user_id from :group_people as given(id)) t join account a on a.user_id = t.user_id
), touched_group as materialized (
    select l.webui_id as id, l.kind, l.litellm_id
      from (select 'team' as kind, id as litellm_id from :teams as given(id)
             union
            select 'organization', id from :organizations as given(id)) t
      join group_link l on l.kind = t.kind and l.litellm_id = t.litellm_id
), desired as (
    :desired_members
), wanted as materialized (
    select distinct g.webui_id as group_id, coalesce(a.webui_id, 'usr_' || a.user_id) as user_id
      from desired d
      join group_link g on g.kind = d.kind and g.litellm_id = d.litellm_id and g.present
      join account a on a.user_id = d.user_id
      -- Somebody may have deleted either in Open WebUI since.
      join "group" gg on gg.id = g.webui_id collate "default"
      join "user" w on w.id = coalesce(a.webui_id, 'usr_' || a.user_id) collate "default"
), owned as materialized (
    select m.group_id, m.user_id from touched_account t join member m on m.user_id = t.id
    union
    select m.group_id, m.user_id from touched_group t join member m on m.group_id = t.id
), gone as materialized (
    select group_id, user_id from owned except select group_id, user_id from wanted
), stripped as materialized (
    -- Active people who are in no group of ours after this. (Whom somebody deleted in Open WebUI has nothing to lose.)
    select distinct g.user_id
      from gone g
      left join account by_id on by_id.webui_id = g.user_id
      left join account by_user on by_user.webui_id is null and by_user.user_id = substr(g.user_id, 5)
      join person p on p.user_id = coalesce(by_id.user_id, by_user.user_id) and p.unusable_because is null
      join "user" u on u.id = g.user_id collate "default"
     where g.user_id not in (select w.user_id from wanted w)
       and not exists (select from member m
                        where m.user_id = g.user_id
                          and (m.group_id, m.user_id) not in (select group_id, user_id from gone))
)
