-- How many entities began to fail within the last hour because a write did, and the newest SQLSTATE. Runs on: target, in the
-- batch's transaction. $1 now (timestamptz). Conflicts of two people, which have none, do not count.
select count(*) as failed, coalesce((array_agg(sqlstate order by last_seen desc))[1], 'unknown') as sqlstate
  from dead_letter where sqlstate is not null and first_seen > $1 - interval '1 hour'
