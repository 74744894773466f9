-- How many people what was touched leads on to: known before anybody looks them up, because it decides how they are looked
-- up. Runs on: target, after the mirror was written. $1 teams whose roster changed, $2 teams that matter to everybody in them,
-- $3 teams and $4 organizations whose people's access may have changed (text[]), $5 how far to count (bigint). Who is in
-- several of them counts in each. Of a roster at least as many join or leave as it is longer or shorter than before.
with team as materialized (
    select id as team_id from unnest($2::text[]) as given(id)
    union
    select id from unnest($3::text[]) as given(id)
    union
    select t.team_id from unnest($4::text[]) as given(id) join litellm_team t on t.organization_id = given.id
), roster as materialized (
    select distinct id as team_id from unnest($1::text[]) as given(id)
)
select (select coalesce(sum(abs(case when jsonb_typeof(t.members_with_roles) = 'array'
                                     then jsonb_array_length(t.members_with_roles) else 0 end
                                - (select count(*) from team_roster r where r.team_id = t.team_id))), 0)::bigint
          from roster join litellm_team t using (team_id))
     + (select count(*) from (select from team join team_roster r using (team_id) limit $5) as members)
     + (select count(*) from (select from team join litellm_key k using (team_id)
                               where k.user_id is not null and k.team_id <> 'litellm-dashboard' limit $5) as owners)
     + (select count(*) from (select from unnest($4::text[]) as given(id)
                                join litellm_organization_membership m on m.organization_id = given.id
                               limit $5) as joined)
     + (select count(*) from (select from unnest($4::text[]) as given(id)
                                join litellm_user u on u.organization_id = given.id limit $5) as belong)
