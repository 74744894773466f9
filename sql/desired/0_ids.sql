-- The ids Open WebUI rows get. Pure functions of LiteLLM's ids. Called "stable", because convert_to is: the planner inlines
-- nothing that claims more than its body, and for 200,000 people a call for each is a third of a second.
--
-- usr_<user_id> (webui_user_id), grp_<organization_id>, grp_team_<team_id>. An id Open WebUI cannot route or hold
-- (/ ? # %, control characters, longer than varchar(255)) or that would read like another prefix of
-- ours becomes usr_h_ / grp_h_ and a hash.

create or replace function webui_user_id(user_id text) returns text
language sql stable parallel safe as $$
    select case
        when user_id ~ '[/?#%\x01-\x1f\x7f-\x9f]' or length(user_id) > 251 or user_id like 'h\_%'
            then 'usr_h_' || encode(sha256(convert_to(user_id, 'UTF8')), 'hex')
        else 'usr_' || user_id
    end
$$;

-- The id of an account where LiteLLM is to know whose it is by X-OpenWebUI-User-Id (accounts.id = "plain"): LiteLLM's own, or the one above
-- where Open WebUI cannot route or hold that, or it reads like one of those.
create or replace function webui_plain_id(user_id text) returns text
language sql stable parallel safe as $$
    select case
        when user_id ~ '[/?#%\x01-\x1f\x7f-\x9f]' or length(user_id) not between 1 and 255 or user_id like 'usr\_%'
            then webui_user_id(user_id)
        else user_id
    end
$$;

-- The id of whoever comes back after the account with their own went to somebody else, with its e-mail.
create or replace function webui_second_id(user_id text) returns text
language sql stable parallel safe as $$
    select 'usr_h_' || encode(sha256(convert_to('again:' || user_id, 'UTF8')), 'hex')
$$;

create or replace function webui_group_id(kind text, litellm_id text) returns text
language sql stable parallel safe as $$
    select case
        when litellm_id ~ '[/?#%\x01-\x1f\x7f-\x9f]' or length(litellm_id) > 246
             or (kind = 'organization' and litellm_id ~ '^(team|h|models)_')
            then 'grp_h_' || encode(sha256(convert_to(kind || ':' || litellm_id, 'UTF8')), 'hex')
        when kind = 'team' then 'grp_team_' || litellm_id
        else 'grp_' || litellm_id
    end
$$;

-- What somebody called a person, a team or an organization in LiteLLM, without white space of any kind around it: nobody sees that,
-- and two names that differ in nothing else look the same. NULL where there is nothing else in it.
create or replace function webui_name(alias text) returns text
language sql immutable parallel safe as $$
    select nullif(btrim(alias, E' \t\n\x0b\f\r\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff'), '')
$$;

-- group.user_ids of Open WebUI before 0.6.37, with some ids added and some taken out: every id once,
-- in its old order. Anything but an array counts as empty.
create or replace function webui_user_ids(user_ids json, joining text[], leaving text[]) returns json
language sql stable parallel safe as $$
    select coalesce(json_agg(id order by place), '[]'::json)
      from (select id, min(place) as place
              from (select value as id, ordinality as place
                      from json_array_elements_text(case when json_typeof(user_ids) = 'array' then user_ids else '[]' end)
                           with ordinality
                     union all
                    select id, 1e9 + ordinality from unnest(joining) with ordinality as j(id, ordinality)) every
             where id not in (select unnest(leaving))
             group by id) kept
$$;
