-- Which keys can be used. blocked is the text Postgres sends (t, f or NULL; only true blocks), expires a UTC timestamp or
-- NULL for never. Nothing is written when a key expires, so "now" is a parameter.
create or replace function key_is_usable(blocked text, expires text, now timestamptz) returns boolean
language sql stable parallel safe as $$
    select blocked is distinct from 't' and (expires is null or expires::timestamp at time zone 'UTC' > now)
$$;
