-- Writes the windows of users with a budget, with the batch that says so. Runs on: target. An array for each column: $1 user_id (text[]), $2
-- has_spent (boolean[]; NULL: they have none any more), $3 resets_at (timestamptz[]).
with given as materialized (
    select * from unnest($1::text[], $2::boolean[], $3::timestamptz[]) g(user_id, has_spent, resets_at)
), gone as (
    delete from chat_window w using given g where g.has_spent is null and w.user_id = g.user_id collate "C"
)
insert into chat_window as w (user_id, has_spent, resets_at)
select * from given where has_spent is not null
on conflict (user_id) do update set has_spent = excluded.has_spent, resets_at = excluded.resets_at
 where (w.has_spent, w.resets_at) is distinct from (excluded.has_spent, excluded.resets_at)
