-- Makes us the leader: whoever led before cannot commit any more. Runs on: target, once the slot is ours.
-- $1 the epoch and $2 the end_lsn we read, $3 the timeline we follow now.
-- Returns the new epoch, or no row if somebody was faster, or has just asked for a copy.
update checkpoint set epoch = epoch + 1, timeline = $3 where epoch = $1 and end_lsn = $2 and copy_because is null
returning epoch
