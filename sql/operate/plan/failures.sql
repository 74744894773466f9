-- What could not be written. Runs on: target, in the session of a plan. Returns kind, key, email, reason, critical.
select d.kind, d.key, u.user_email as email, d.reason, d.critical
  from dead_letter d
  left join litellm_user u on u.user_id = d.key and d.kind not in ('team', 'organization', 'model')
 order by d.critical desc, d.kind, d.key
