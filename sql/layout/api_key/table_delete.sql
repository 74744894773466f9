-- Deletes keys of ours from table api_key. A CTE of project/key_difference.sql. Compared once more as the row is under its
-- lock: the person may just have made another one.
deleted as (
    delete from api_key k using doomed d
     where k.id = d.row_id and k.user_id = d.id collate "default" and sha256(convert_to(k.key, 'UTF8')) = d.sha256
)
