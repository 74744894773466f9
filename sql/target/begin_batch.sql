-- Opens a batch: locks the checkpoint row and proves that we still lead. Runs on: target.
-- $1 our epoch, $2 the end_lsn we know. Returns 1 row, or none if another daemon took over.
select 1 from checkpoint where epoch = $1 and end_lsn = $2 for update
