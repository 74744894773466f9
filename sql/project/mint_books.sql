-- The books about minted keys: the ledger, and one audit row each. CTEs of sql/layout/*/mint.sql; "written" holds
-- the keys that are there now.
owned as (
    insert into minted_key (webui_id, sha256, newest, minted_at) select id, sha256, newest, $1 from written
    on conflict (webui_id) do update
        set sha256 = excluded.sha256, newest = excluded.newest, minted_at = excluded.minted_at
), audit as (
    insert into sync_audit (operation, record_id, sync_result, new_data, created_at, lsn)
    select 'SYNC_API_KEY', user_id, 'SUCCESS', jsonb_build_object('webui_id', id), $1, $2 from written where $3
)
