-- Whether anybody of Open WebUI's may be written. Runs on: target. $1 whether somebody was written before (boolean). Returns one
-- row: whether Open WebUI has an admin, or, once people were written, anybody at all: without anybody its tables were made
-- anew, and whoever signs up first has to find them empty.
select exists (select from "user" where role = 'admin') or $1 and exists (select from "user")
