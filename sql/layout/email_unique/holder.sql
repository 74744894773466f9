-- Who holds which e-mail in Open WebUI, where uq_user_email_lower exists (0.11.0 and newer): the
-- planner turns the join into a look-up. A CTE of project/account_difference.sql.
email_holder as (
    select lower(e.email) as email, e.id, e.role from "user" e where e.email is not null
)
