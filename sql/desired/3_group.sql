-- Which groups Open WebUI should have: one per organization and one per team of LiteLLM.
-- parent_group_id stays NULL: members of a child group would inherit the parent's grants.
create or replace view desired_group as
select 'organization'::text as kind, o.organization_id as litellm_id,
       webui_group_id('organization', o.organization_id) as webui_id,
       coalesce(webui_name(o.organization_alias), o.organization_id) as name,
       jsonb_build_object('organization_id', o.organization_id) as provenance
  from litellm_organization o
union all
select 'team', t.team_id, webui_group_id('team', t.team_id),
       coalesce(webui_name(t.team_alias), t.team_id),
       jsonb_build_object('team_id', t.team_id, 'organization_id', t.organization_id)
  from litellm_team t;
