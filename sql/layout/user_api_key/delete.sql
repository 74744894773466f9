-- Takes keys of ours out of user.api_key. A CTE of project/key_difference.sql. Compared once more as the row is under its
-- lock: the person may just have made another one.
deleted as (
    update "user" w set api_key = null from doomed d
     where w.id = d.row_id and sha256(convert_to(w.api_key, 'UTF8')) = d.sha256
)
