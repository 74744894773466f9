-- Deletes keys of ours from table api_key, and copied hashes that are in the way of one. CTEs of project/key_difference.sql.
-- Compared once more as the row is under its lock: the person may just have made another one.
deleted as (
    delete from api_key k using doomed d
     where k.id = d.row_id and k.user_id = d.id collate "default" and sha256(convert_to(k.key, 'UTF8')) = d.sha256
), cleared as (
    delete from api_key k using judged j, litellm_key t
     where j.action = 'mint' and k.id = ('key_' || j.id) collate "default" and t.token = k.key collate "C"
)
