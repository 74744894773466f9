-- What `status` reads when the daemon's own pages are out of reach. Runs on: target.
-- $1 instance (text, a uuid), $2 state, $3 reason, $4 layout (NULL: as it was).
insert into daemon (instance, state, reason, layout) values ($1::text::uuid, $2, $3, $4)
on conflict (one) do update set instance = excluded.instance, state = excluded.state, reason = excluded.reason,
    layout = coalesce(excluded.layout, daemon.layout), heartbeat_at = now()
