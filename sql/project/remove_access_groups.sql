-- Removes the access groups of sets that have none any more, and forgets sets that nobody has. Runs on: target, after the
-- members left. $1 now (timestamptz), $2 end of the batch (pg_lsn), $3 sets without a group (text[]). The groups are wholly
-- ours, so nothing is asked. Returns one row: removed.
with removed as (
    delete from "group" g using unnest($3::text[]) d(hash) where g.id = 'grp_models_' || d.hash returning g.id
), unused as (
    delete from model_set s using unnest($3::text[]) d(hash) where s.hash = d.hash collate "C" and s.people = 0
), audit as (
    insert into sync_audit (operation, record_id, sync_result, created_at, lsn)
    select 'DELETE_ACCESS_GROUP', substr(id, 12), 'SUCCESS', $1, $2 from removed
)
select count(*) as removed from removed
