-- What decides over a person's models, level by level: one view per kind of row, each with the LiteLLM user it is about. (Teams:
-- access/of_teams.sql.)
-- What the lists mean, and how the levels narrow each other, is src/access/.

-- The models of access groups, by their ids.
create or replace function access_group_models(ids text[]) returns text[]
language sql stable as $$
    select coalesce(array_agg(distinct name), '{}')
      from litellm_access_group g cross join unnest(g.access_model_names) name
     where g.access_group_id = any (ids)
$$;

-- Everybody whose models we look after, once they have an account. LiteLLM's admins become Open WebUI's, who see everything anyway.
create or replace view access_person as
select u.user_id, u.models,
       -- Where no budget is used up at all, nobody's is looked up; the same below.
       exists (select from budget_closed)
           and (exists (select from budget_closed c where c.kind = 'user' and c.id = u.user_id and c.team_id = '')
                or exists (select from budget_closed c where c.email = u.email and c.kind = 'customer')) as budget_closed
  from litellm_user u
 where u.user_role is distinct from 'proxy_admin';

-- The person's own organizations: the personal path.
create or replace view access_organization as
select m.user_id, o.organization_id, o.models, exists (select from budget_closed)
       and exists (select from budget_closed c where c.kind = 'organization' and c.id = o.organization_id and c.team_id = '') as budget_closed
  from litellm_organization_membership m join litellm_organization o using (organization_id)
union all
select u.user_id, o.organization_id, o.models, exists (select from budget_closed)
       and exists (select from budget_closed c where c.kind = 'organization' and c.id = o.organization_id and c.team_id = '')
  from litellm_user u join litellm_organization o using (organization_id)
 where not exists (select from litellm_organization_membership m
                    where m.user_id = u.user_id and m.organization_id = u.organization_id);

-- The person's keys, but for UI sessions. A project that is gone does not narrow.
create or replace view access_key as
select k.user_id, k.token, nullif(k.team_id, '') as team_id, k.models, k.aliases::text as aliases, k.blocked, k.expires,
       k.key_type, k.allowed_routes, p.project_id, coalesce(p.blocked = 't', false) as project_blocked,
       p.models as project_models,
       case when cardinality(k.access_group_ids) > 0 then access_group_models(k.access_group_ids) end as group_models,
       -- Those that name the key's team, or the key: with them a key goes beyond its team.
       case when cardinality(k.access_group_ids) > 0 and nullif(k.team_id, '') is not null then
           access_group_models(array(select g.access_group_id from litellm_access_group g
                                      where g.access_group_id = any (k.access_group_ids)
                                        and (k.team_id = any (g.assigned_team_ids) or k.token = any (g.assigned_key_ids))))
       end as override_models,
       exists (select from budget_closed)
           and exists (select from budget_closed c where c.kind = 'key' and c.id = k.token and c.team_id = '') as budget_closed
  from litellm_key k left join litellm_project p using (project_id)
 where k.user_id is not null and k.team_id is distinct from 'litellm-dashboard';

-- model.access_control of Open WebUI before 0.8.0, an object, with some readers added and some taken out.
create or replace function webui_access_control(access_control json, joining_users text[], leaving_users text[],
                                                joining_groups text[], leaving_groups text[]) returns json
language sql immutable parallel safe as $$
    select (jsonb_build_object('write', jsonb_build_object('group_ids', '[]'::jsonb, 'user_ids', '[]'::jsonb))
            || access_control::jsonb
            || jsonb_build_object('read', case when json_typeof(access_control -> 'read') = 'object'
                                               then (access_control -> 'read')::jsonb else '{}' end
                   || jsonb_build_object(
                          'user_ids', webui_user_ids(coalesce(access_control #> '{read,user_ids}', '[]'), joining_users, leaving_users),
                          'group_ids', webui_user_ids(coalesce(access_control #> '{read,group_ids}', '[]'), joining_groups, leaving_groups))))::json
$$;
