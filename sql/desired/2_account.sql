-- Which accounts Open WebUI should have: one row per person who gets one, with the e-mail, name and
-- role it should have. A person whose e-mail somebody else has a better claim to is missing here.

-- Follows the chain of people who move from one e-mail to another: does `mover` end up leaving the
-- e-mail its account holds? Swaps and rings do; a chain that ends at somebody who stays does not.
create or replace function leaves_its_email(mover text) returns boolean
language plpgsql stable as $$
declare
    walker text := mover;
    goal   text;
    born   text;
    seen   text[] := '{}';
    holder record;
begin
    loop
        if walker = any (seen) then
            return true;
        end if;
        -- A longer chain is not followed: its people get dead letters and move a few at a time.
        if cardinality(seen) >= 32 then
            return false;
        end if;
        seen := seen || walker;
        select p.email, p.created_at into goal, born
          from person p where p.user_id = walker and p.unusable_because is null;
        if not found then
            -- The person left. A locked account gives its e-mail up.
            return true;
        end if;
        if exists (select from person p left join account a using (user_id)
                    where p.email = goal and p.user_id <> walker and p.unusable_because is null
                      and (coalesce(a.in_step, false) or (p.created_at, p.user_id) < (born, walker))) then
            return false;
        end if;
        select a.user_id, a.active into holder
          from account a where a.email = goal and not a.in_step and a.user_id <> walker limit 1;
        if not found or not holder.active then
            return true;
        end if;
        walker := holder.user_id;
    end loop;
end
$$;

-- What somebody's account should look like: one row per person with a usable e-mail.
create or replace view profile as
select p.user_id, p.email, p.created_at,
       -- {team_alias}-{user_alias}, {user_alias}, else the e-mail's local part.
       left(case
                when webui_name(p.user_alias) is not null then
                    coalesce(case
                        when p.team_id is null and coalesce(cardinality(p.teams), 0) = 0 then null
                        when (select name_with_team from policy) then
                            -- the user's team_id, else the first of teams[] whose roster names them
                            (select webui_name(t.team_alias)
                               from (select p.team_id as id, 0::bigint as place
                                      union all
                                     select x.id, x.place from unnest(p.teams) with ordinality as x(id, place)) c
                               join litellm_team t on t.team_id = c.id
                              where c.place = 0
                                 or exists (select from team_roster r
                                             where r.team_id = c.id
                                               and (r.user_id = p.user_id or r.email = p.email))
                              order by c.place limit 1)
                        end || '-', '') || webui_name(p.user_alias)
                else split_part(p.email, '@', 1)
            end, 255) as name,
       case when p.user_role = 'proxy_admin' then 'admin' else 'user' end as role
  from person p
 where p.unusable_because is null;

create or replace view desired_account as
select p.user_id, p.email, p.name, p.role
  from profile p
  left join account mine on mine.user_id = p.user_id
 -- An account that holds the e-mail keeps it while its person is active; among those without, the older wins.
 where not exists (select from person rival left join account theirs on theirs.user_id = rival.user_id
                    where rival.email = p.email and rival.user_id <> p.user_id
                      and rival.unusable_because is null
                      and mine.in_step is not true
                      and (theirs.in_step is true
                           or (rival.created_at, rival.user_id) < (p.created_at, p.user_id)))
   -- Somebody who wants another e-mail by now still holds this one, unless they leave it.
   and not exists (select from account holder left join person h
                       on h.user_id = holder.user_id and h.unusable_because is null
                    where holder.email = p.email and not holder.in_step and holder.user_id <> p.user_id
                      -- A locked account is linked again, or gives its e-mail up.
                      and case when h.user_id is null or not holder.active then false
                               else not leaves_its_email(holder.user_id) end);
