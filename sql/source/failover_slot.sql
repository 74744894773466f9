-- Whether a standby of LiteLLM's server could take our slot over. Runs on: source. $1 slot name. Returns 0 or 1 row, with NULL
-- where nothing stands by, or the server (before 17) knows no such slots. What the standby itself makes of it is not seen here.
select case when to_jsonb(s) ? 'failover'
             and exists (select from pg_catalog.pg_replication_slots where slot_type = 'physical' and active)
            then (to_jsonb(s) ->> 'failover')::boolean
             and coalesce((select bool_and(p.active is true)
                             from regexp_split_to_table(nullif(current_setting('synchronized_standby_slots', true), ''),
                                                        '\s*,\s*') as named (slot)
                             left join pg_catalog.pg_replication_slots p on p.slot_name = btrim(named.slot, ' "')), false)
       end as synced
  from pg_catalog.pg_replication_slots s
 where s.slot_name = $1
