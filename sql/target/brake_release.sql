-- A brake that its batch got past without needing it is over: an approval given later must not be kept for some other
-- accident. Runs on: target, in the batch's transaction. $1 end of the batch (pg_lsn).
update brake set used_at = now() where used_at is null and end_lsn <= $1 and resnapshot is null
