-- The rows of "user" for new people: a CTE of the statements that make accounts. "fresh" has id, email, name and role;
-- $1 now (timestamptz).
new_user as (
    -- created_at is the time of our insert: Open WebUI takes its oldest account for the primary admin.
    insert into "user" (id, email, name, role, profile_image_url, created_at, updated_at, last_active_at)
    select id, email, name, role, '/user.png', at, at, at
      from fresh, (select extract(epoch from $1)::bigint as at) t
)
