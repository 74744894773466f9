-- Inserts the accounts of people who are simply new: nothing is known of them or of their e-mail here, so there is
-- nothing to compare. Leaves everybody else in the temporary table remaining, for create_accounts.sql and those after it.
-- In a large batch nearly all are new, and the general difference costs as much as all these writes.
-- Runs on: target, before create_accounts.sql. $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per
-- person (boolean; else a summary); :users gives the LiteLLM user ids. Returns one row: created.
--
-- Whoever is taken here is one for whom account_difference.sql says "create", and nobody else's answer depends on them:
-- they are nobody's rival for an e-mail, and hold none that anybody waits for.
with candidate as materialized (
    -- A left join and a flag: a condition would make the planner expect nearly nobody, and look up one by one.
    -- Sorted rather than hashed: it is wanted in this order below.
    select g.user_id, case when (select plain_ids from policy) then g.user_id else 'usr_' || g.user_id end as id, p.email, p.name, p.role,
           p.user_id is not null
               and case when (select plain_ids from policy) then webui_plain_id(g.user_id) = g.user_id
                        else webui_user_id(g.user_id) = 'usr_' || g.user_id end as is_plain
      from (select id as user_id from :users as given(id) order by id) g
      left join profile p on p.user_id = g.user_id
), taken as materialized (
    -- Whoever anything here says something about. Grouped, so that the planner expects few, whatever it expects of the joins.
    select user_id
      from (select c.user_id from candidate c
             -- Their own is one of them. A join with the others costs three times as much.
             where c.email in (select r.email from litellm_user r group by r.email having count(*) > 1)
             union all
            select c.user_id from candidate c join account a on a.user_id = c.user_id
             union all
            select c.user_id from candidate c join account a on a.webui_id = c.id
             union all
            select c.user_id from candidate c join account a on a.email = c.email and not a.in_step
             union all
            select c.user_id from candidate c join "user" w on w.id = c.id collate "default"
             union all
            select c.user_id from candidate c join "user" w on lower(w.email) = c.email collate "default"
             union all
            select c.user_id from candidate c join auth au on au.id = c.id collate "default"
             union all
            select c.user_id
              from candidate c join dead_letter l on l.kind in ('account', 'last_admin') and l.key = c.user_id
             union all
            select c.user_id from candidate c join skipped s on s.user_id = c.user_id
             union all
            -- A deleted account took the API key we gave it along: create_accounts.sql forgets that.
            select c.user_id from candidate c join minted_key m on m.webui_id = c.id) t
     group by user_id
), fresh as materialized (
    -- In key order, which is what the indexes of all three tables like best.
    select c.user_id, c.id, c.email, c.name, c.role
      from candidate c
     where c.is_plain and not exists (select from taken t where t.user_id = c.user_id)
     order by c.user_id
), :new_user, new_auth as (
    -- '' never verifies.
    insert into auth (id, email, password, active) select id, email, '', true from fresh
), new_account as (
    insert into account (user_id, webui_id, email, origin, gave_admin)
    select user_id, nullif(id, 'usr_' || user_id), email, 'created', role = 'admin' from fresh
), rest as (
    insert into remaining (id)
    select user_id from candidate where not is_plain union select user_id from taken
), audit as (
    insert into sync_audit (operation, record_id, sync_result, new_data, created_at, lsn)
    select 'SYNC_USER', user_id, 'SUCCESS',
           jsonb_object(array['webui_id', 'email', 'name', 'role'], array[id, email, name, role]), $1, $2
      from fresh where $3
    union all
    select 'SYNC_USER', null, 'SUCCESS', jsonb_build_object('count', count(*)), $1, $2
      from fresh where not $3 having count(*) > 0
)
select count(*) as created from fresh
