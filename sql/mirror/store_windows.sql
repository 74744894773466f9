-- Writes when the windows of users with a budget end, with the batch that says so. Runs on: target. An array for each column: $1 user_id
-- (text[]), $2 resets_at (timestamptz[]; NULL: none).
with given as materialized (
    select * from unnest($1::text[], $2::timestamptz[]) g(user_id, resets_at)
), gone as (
    delete from chat_window c using given g where g.resets_at is null and c.user_id = g.user_id collate "C"
)
insert into chat_window as c (user_id, resets_at)
select * from given where resets_at is not null
on conflict (user_id) do update set resets_at = excluded.resets_at where c.resets_at <> excluded.resets_at
