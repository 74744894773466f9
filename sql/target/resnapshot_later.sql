-- Puts a request off. Runs on: target. $1 id, $2 phase, $3 why, $4 seconds (float8; NULL: until it is approved).
update resnapshot
   set phase = $2, error = $3, not_before = coalesce(now() + $4::float8 * interval '1 second', 'infinity')
 where id = $1
