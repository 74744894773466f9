-- Writes passwords to accounts that still have none. Runs on: target. $1 now (timestamptz); $2 webui ids, $3 user ids (text[],
-- of one length); the temporary table new_password holds the hash of each by its place. Returns the webui ids written.
with given as materialized (
    select g.id, g.user_id, n.hash
      from unnest($2::text[], $3::text[]) with ordinality as g(id, user_id, place) join new_password n using (place)
), written as (
    update auth au set password = g.hash
      from given g where au.id = g.id collate "default" and coalesce(au.password, '') = ''
    returning g.id, g.user_id
), audit as (
    insert into sync_audit (operation, record_id, sync_result, new_data, created_at)
    select 'SET_PASSWORD', user_id, 'SUCCESS', jsonb_build_object('webui_id', id), $1 from written
)
select id from written
