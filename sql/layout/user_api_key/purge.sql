-- Takes the keys we minted out of user.api_key, and no others. Runs on: target, in a purge, before the accounts.
update "user" w set api_key = null from minted_key m
 where w.id = m.webui_id collate "default" and sha256(convert_to(w.api_key, 'UTF8')) = m.sha256
