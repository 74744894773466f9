-- Uses an approval up, if there is one for about as many people: it lets as many pass as it was given for, and the
-- usual number on top. Runs on: target, in the transaction. $1 people (bigint), $2 the usual limit (bigint),
-- $3 the resnapshot whose merge this is (bigint; NULL: a batch of the stream). Returns the brake's id.
update brake set used_at = now()
 where id = (select id from brake where approved_at is not null and used_at is null
                and resnapshot is not distinct from $3::bigint
                and people + $2::bigint >= $1::bigint order by id limit 1)
returning id
