-- What `status` reads when the daemon's own pages are out of reach, from a daemon that does not lead. Runs on: target.
-- $1 instance (text, a uuid), $2 state, $3 reason. What another daemon said of itself within the last seconds stays, unless it was its last word.
insert into daemon (instance, state, reason) values ($1::text::uuid, $2, $3)
on conflict (one) do update set instance = excluded.instance, state = excluded.state, reason = excluded.reason,
    heartbeat_at = now()
 where daemon.instance = excluded.instance or daemon.state = 'stopped' or daemon.heartbeat_at < now() - interval '10 seconds'
