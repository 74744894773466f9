-- Leaves those who are to get a key in the temporary table "minting": they may be too many to hold. A CTE of
-- project/key_difference.sql.
, waiting as (
    insert into minting (id, user_id, newest) select id, user_id, newest from judged where action = 'mint'
)
