-- Whether anybody used Open WebUI after second $6: a piece of sql/target/glance.sql. As in sql/project/active_people.sql.
exists (select from "user"
         where last_active_at > coalesce($6, extract(epoch from clock_timestamp())::bigint - 120)
           and last_active_at < floor(extract(epoch from clock_timestamp()))::bigint - 1
           and last_active_at > created_at)
