-- Writes up to when expired keys were looked for. Runs on: target, in the transaction that projects their owners.
-- $1 our epoch, $2 that moment (timestamptz).
update checkpoint set expired_through = $2 where epoch = $1
