-- Who holds which e-mail in Open WebUI, where no index helps and e-mails may even repeat (before
-- 0.11.0): one pass over "user", only when somebody claims an e-mail. Of several it is the one whom sign-in finds: it looks for
-- an active log-in with the e-mail in lower case; then whoever was here last, then the oldest. A CTE of
-- project/account_difference.sql.
email_holder as materialized (
    select distinct on (lower(e.email)) lower(e.email) as email, e.id, e.role
      from "user" e left join auth au on au.id = e.id
     -- "is true" keeps this a hashed look-up whatever joins the planner may use.
     where (lower(e.email) in (select c.claim collate "default" from candidate c where c.claim is not null)) is true
     order by lower(e.email), (au.active and au.email = lower(e.email)) is true desc, au.active is true desc,
              e.last_active_at desc nulls last, e.created_at, e.id
)
