-- Whether Open WebUI's people are where they were found. Runs on: target, in a batch, before anything of Open WebUI's is written.
-- Returns 1 row, the oid of the table they are in (bigint); or none while nobody is in it.
--
-- Reads the table and not the catalogs: nobody can drop, rename or truncate it from here to the end of the transaction.
select tableoid::oid::bigint from "user" limit 1
