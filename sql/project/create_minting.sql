-- Where those who are to get an API key wait for it, when they may be too many to hold in memory. Runs on: target.
create temporary table if not exists minting (id text collate "C" not null, user_id text not null, newest text not null)
on commit delete rows
