-- What customers called like users' e-mails had spent before the window of the user's budget began, by LiteLLM's sums of each day. Runs on:
-- source, once: at the first sight of them. :schema LiteLLM's schema. Returns (end_user_id, spend). The day in which a window began counts in
-- it as a whole. LiteLLM's "30d" goes from one day of a month to the same of the next.
with begun as materialized (
    select lower(btrim(u.user_email)) as email, to_char(min(w.start), 'YYYY-MM-DD') as day
      from :schema."LiteLLM_UserTable" u
      cross join lateral (select u.budget_reset_at - case
                                     when u.budget_duration in ('30d', '1mo') then interval '1 month'
                                     when u.budget_duration ~ '^[0-9]{1,4}mo$' then replace(u.budget_duration, 'mo', ' months')::interval
                                     when u.budget_duration ~ '^[0-9]{1,6}[smhdw]$' then u.budget_duration::interval
                                 end as start) w
     where u.max_budget is not null and w.start is not null and btrim(u.user_email) <> ''
     group by 1
)
select d.end_user_id, sum(d.spend)::float8 as spend
  from :schema."LiteLLM_DailyEndUserSpend" d join begun b on lower(btrim(d.end_user_id)) = b.email
 where d.date < b.day
 group by 1
