-- Approves a held batch. Runs on: target. $1 the brake's id (bigint). Returns how many people it is about.
update brake set approved_at = now() where id = $1 and used_at is null returning people
