-- Forgets a dead letter. Runs on: target. $1 kind, $2 key. Returns how many.
with gone as (
    delete from dead_letter where kind = $1 and key = $2 returning 1
)
select count(*) from gone
