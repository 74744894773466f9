-- Drops our slot. Runs on: source. $1 slot name. One that cannot be ours stays, whoever looked at it before: another may have
-- been made under that name since.
select pg_drop_replication_slot(slot_name)
  from pg_catalog.pg_replication_slots
 where slot_name = $1 and plugin = 'pgoutput' and database = current_database()
