-- Pauses the daemon; a pause that is there already stays as it is. Runs on: target. $1 why.
insert into pause (reason) values ($1) on conflict (one) do nothing
