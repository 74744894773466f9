-- Where the touched keys of a large batch are noted, piece by piece. Runs on: target, before its transaction begins.
-- No index: whoever reads it sorts out the repetitions.
create temporary table if not exists touched (kind text, id text collate "C") on commit delete rows
