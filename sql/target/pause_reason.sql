-- Whether somebody paused the daemon. Runs on: target. Returns 0 or 1 row: why, since when (text).
select reason, since::text from pause
