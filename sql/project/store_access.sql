-- Writes which set of models each of some people has, and says what follows for Open WebUI. Runs on: target, after the
-- accounts. $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 one audit row per person (boolean; else a summary),
-- $4 user ids and $5 their sets (text[], NULL: no model), $6 every one of these sets with $7 its name and $8 its models, a
-- JSON array (text[]), $9 how many people make a group (integer), $10 what is answered (text):
-- 'changed' what this changes, 'sets' every set and no account, 'stripped' nothing but who loses their last model.
-- Returns (kind, id, wants, has, hash): 'set': a set, whether it should have a group and has one; 'person': an account whose
-- grants or membership may differ; 'stripped': an account that loses its last model, as a hash, and (wants) whether a used-up budget
-- takes some from its owner.
with decided as materialized (
    select user_id collate "C" as user_id, hash collate "C" as hash from unnest($4::text[], $5::text[]) g(user_id, hash)
), given as materialized (
    select user_id, hash from decided
    union all
    -- Whose account went to somebody else has nothing any more.
    select distinct e.user_id, null::text collate "C"
      from decided d
      join account a on a.user_id = d.user_id
      join effective_access e on e.webui_id = coalesce(a.webui_id, 'usr_' || a.user_id) and e.user_id <> a.user_id
     where e.user_id not in (select user_id from decided)
), compared as materialized (
    select g.user_id, e.webui_id as old_id, e.set_hash as old_hash,
           case when g.hash is not null and a.user_id is not null then coalesce(a.webui_id, 'usr_' || a.user_id) end as new_id,
           case when a.user_id is not null then g.hash end as new_hash, coalesce(a.active, false) as active
      from given g
      left join account a on a.user_id = g.user_id
      left join effective_access e on e.user_id = g.user_id
), changed as materialized (
    select * from compared where (old_id, old_hash) is distinct from (new_id, new_hash)
), gone as (
    delete from effective_access e using changed c where e.user_id = c.user_id and c.new_hash is null
), put as (
    insert into effective_access (user_id, webui_id, set_hash)
    select user_id, new_id, new_hash from changed where new_hash is not null order by user_id
    on conflict (user_id) do update set webui_id = excluded.webui_id, set_hash = excluded.set_hash
), resolved as (
    delete from dead_letter l using given g where l.kind = 'access' and l.key = g.user_id
), delta as materialized (
    select hash, sum(people)::int as people
      from (select new_hash as hash, 1 as people from changed where new_hash is not null
             union all
            select old_hash, -1 from changed where old_hash is not null) c
     group by hash
), counted as (
    -- Counted here and not anew each time: nearly everybody may have one and the same set.
    insert into model_set (hash, name, models, people)
    select d.hash, coalesce(m.name, s.name),
           coalesce(m.models, array(select jsonb_array_elements_text(s.models::jsonb))), d.people
      from delta d
      left join model_set m on m.hash = d.hash
      left join unnest($6::text[], $7::text[], $8::text[]) s(hash, name, models) on s.hash collate "C" = d.hash
    on conflict (hash) do update set people = model_set.people + excluded.people
    returning hash, people
), judged as materialized (
    select c.hash, c.people >= $9 as wants, g.set_hash is not null as has
      from (select hash, people from counted
             union all
            select m.hash, m.people from model_set m
             where $10 = 'sets' and m.hash not in (select hash from delta)) c
      left join access_group g on g.set_hash = c.hash
), principal as (
    -- Also of those who keep their set: they are only given where what they have in Open WebUI is in doubt.
    select old_id as id from compared where old_id is not null
    union
    select new_id from compared where new_id is not null
    union
    -- Whose grants move between them and a group, because their set became common or rare.
    select e.webui_id from judged j join effective_access e on e.set_hash = j.hash where j.wants <> j.has
), audit as (
    insert into sync_audit (operation, record_id, sync_result, old_data, new_data, created_at, lsn)
    select 'SYNC_MODELS', c.user_id, 'SUCCESS',
           case when c.old_hash is not null then jsonb_build_object('webui_id', c.old_id, 'set', c.old_hash, 'name', o.name) end,
           case when c.new_hash is not null then jsonb_build_object('webui_id', c.new_id, 'set', c.new_hash, 'name',
               coalesce(n.name, s.name)) end, $1, $2
      from changed c
      left join model_set o on o.hash = c.old_hash
      left join model_set n on n.hash = c.new_hash
      left join unnest($6::text[], $7::text[]) s(hash, name) on s.hash collate "C" = c.new_hash
     where $3
    union all
    select 'SYNC_MODELS', null, 'SUCCESS', null, jsonb_build_object('people', count(*)), $1, $2
      from changed where not $3 having count(*) > 0
)
select 'set' as kind, hash as id, wants, has, null::bigint as hash from judged where $10 <> 'stripped'
union all
select 'person', id, null, null, null from principal where $10 = 'changed'
union all
select 'stripped', '',
       exists (select from budget_closed) and exists (select from budget_person b where b.user_id = c.user_id), null, hashtextextended(old_id, 0)
  from changed c
 where new_hash is null and old_hash is not null and active
   and exists (select from person p where p.user_id = c.user_id and p.unusable_because is null)
