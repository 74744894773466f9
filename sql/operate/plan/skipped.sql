-- Who gets no account, and why. Runs on: target, in the session of a plan. Returns user_id, email, reason.
select s.user_id, u.user_email as email, s.reason from skipped s left join litellm_user u using (user_id) order by s.reason, s.user_id
