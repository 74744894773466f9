-- Puts a request off, longer each time; the sixth time it has failed. Runs on: target. $1 id, $2 phase, $3 why,
-- $4 whether it waits for an approval instead (boolean).
update resnapshot
   set attempts = attempts + 1, error = $3,
       phase = case when not $4 and attempts >= 5 then 'failed' else $2 end,
       finished_at = case when not $4 and attempts >= 5 then now() end,
       not_before = case when $4 then 'infinity' else now() + 30 * 2 ^ attempts * interval '1 second' end
 where id = $1
