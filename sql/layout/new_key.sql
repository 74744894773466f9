-- A new key: 'sk-' and 64 hex digits of the hash of 244 random bits. An expression of sql/layout/*/mint.sql.
-- gen_random_uuid() is the server's strong randomness. Made here and not sent: a server that logs slow statements logs
-- their parameters as well, and a key in a log is a key given away.
'sk-' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex')
