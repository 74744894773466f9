-- The groups of an account and those these stand under (0.12.0 and newer: a child group has its parent's grants). Stands for the account's
-- groups in sql/layout/*/sees.sql. :direct its own groups.
with recursive up(id) as (
    select d.group_id from (:direct) d
    union
    select g.parent_group_id from up join "group" g on g.id = up.id where g.parent_group_id is not null
) select id from up
