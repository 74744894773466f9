-- The brake on the stream that waits for an approval. Runs on: target. Returns id, people, active.
select id, people::bigint, active::bigint from brake
 where approved_at is null and used_at is null and resnapshot is null order by id desc limit 1
