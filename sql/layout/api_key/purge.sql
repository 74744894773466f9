-- Removes the keys we minted from table api_key, and no others. Runs on: target, in a purge, before the accounts.
-- A key is ours by account and value, in whatever row it is.
delete from api_key k using minted_key m
 where k.user_id = m.webui_id collate "default" and sha256(convert_to(k.key, 'UTF8')) = m.sha256
