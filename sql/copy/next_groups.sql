-- The next teams and organizations to be looked at: whatever LiteLLM has, or we made a group for. Runs on: target. $1 and $2 after
-- this kind and id (text), $3 at most this many (bigint). Returns (kind, id).
select kind, id
  from (select 'team' collate "C" as kind, team_id as id from litellm_team
         union
        select 'organization', organization_id from litellm_organization
         union
        select kind, litellm_id from group_link) next
 where (kind, id) > ($1, $2)
 order by kind, id limit $3
