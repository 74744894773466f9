-- Writes the checkpoint as the first statement of a batch that is sent together with its COMMIT: as advance.sql (:advance, and its
-- parameters), but where that would return no row this fails, and nothing that comes after it can commit. Runs on: target.
-- Returns 1 row, where the checkpoint's is now (text).
with moved as (
:advance
)
select (select ctid from moved),
       case when exists (select from moved) then 1
            -- No number: this fails, and says why in the server's log.
            else ('litellm-webui-sync: another daemon moved the checkpoint: ' || (select count(*) from moved))::bigint end
