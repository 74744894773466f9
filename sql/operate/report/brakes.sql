-- What the brake held last, newest first. Runs on: target. Returns (people, active, reason, raised_at, approved_at, used_at).
select people, active, reason, raised_at::text as raised_at, approved_at::text as approved_at, used_at::text as used_at
  from brake order by id desc limit 10
