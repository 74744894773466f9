-- Reads the head of every message a slot holds, without consuming any. Runs on: source.
-- $1 slot name (text), $2 last position or null (text), $3 publication (text).
-- Returns a row per message: its first 18 bytes, enough for the end position of a commit.
select substring(data from 1 for 18)
  from pg_logical_slot_peek_binary_changes($1::text::name, $2::text::pg_lsn, null,
           'proto_version', '1', 'publication_names', $3::text, 'messages', 'false');
