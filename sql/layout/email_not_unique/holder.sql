-- Who holds which e-mail in Open WebUI, where no index helps and e-mails may even repeat (before
-- 0.11.0): one pass over "user", only when somebody claims an e-mail. Sign-in takes the first row it
-- finds; we take the oldest. A CTE of project/account_difference.sql.
email_holder as materialized (
    select distinct on (lower(e.email)) lower(e.email) as email, e.id, e.role
      from "user" e
     -- "is true" keeps this a hashed look-up whatever joins the planner may use.
     where (lower(e.email) in (select c.claim collate "default" from candidate c where c.claim is not null)) is true
     order by lower(e.email), e.created_at, e.id
)
