-- Whether somebody waits for a lock or a snapshot of ours. Runs on: source; reads catalogs only. $1 the process id of our session.
-- Returns one row: held_up. Whoever waits behind them counts as well.
select exists (select from pg_catalog.pg_locks l
                where not l.granted and $1 = any (pg_catalog.pg_blocking_pids(l.pid))) as held_up
