-- Makes dead letters due at once: the daemon's timer takes them up within seconds. Runs on: target.
-- $1 kind, $2 key (both NULL: every one). Returns how many.
with due as (
    update dead_letter set last_seen = '-infinity'
     where ($1::text is null or kind = $1) and ($2::text is null or key = $2) returning 1
)
select count(*) from due
