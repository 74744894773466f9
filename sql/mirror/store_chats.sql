-- Writes what the chats of people with a budget come to, with the batch that says so. Runs on: target. An array for each column: $1
-- customer_id (text[]), $2 spend, $3 counted_from (float8[]; NULL: they count for nobody any more), $4 resets_at (timestamptz[]).
with given as materialized (
    select * from unnest($1::text[], $2::float8[], $3::float8[], $4::timestamptz[]) g(customer_id, spend, counted_from, resets_at)
), gone as (
    delete from chat_spend c using given g where g.counted_from is null and c.customer_id = g.customer_id collate "C"
)
insert into chat_spend as c (customer_id, spend, counted_from, resets_at)
select * from given where counted_from is not null
on conflict (customer_id) do update
   set spend = excluded.spend, counted_from = excluded.counted_from, resets_at = excluded.resets_at
 where (c.spend, c.counted_from, c.resets_at) is distinct from (excluded.spend, excluded.counted_from, excluded.resets_at)
