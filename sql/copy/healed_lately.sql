-- How often the daemon copied everything to heal within the last hour. Runs on: target. Copies that never got a slot read
-- nothing and do not count; those that were begun and not finished do, or a restart loop would evade the limit.
select count(*) from backfill where healing and point is not null and started_at > now() - interval '1 hour'
