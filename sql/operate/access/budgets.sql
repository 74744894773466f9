-- The used-up budgets that take models from a LiteLLM user ($1, text). Runs on: target. A key is named as everywhere, by a hash of its token.
select p.kind,
       case p.kind when 'key' then left(encode(sha256(convert_to(p.id, 'UTF8')), 'hex'), 12)
                   when 'team_member' then p.team_id || '/' || p.id
                   else p.id end as id,
       b.spend as spend_usd, b."limit" as limit_usd, extract(epoch from b.resets_at)::float8 as resets_at,
       to_char(b.resets_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') as reset_text,
       extract(epoch from b.since)::float8 as closed_at
  from (select distinct kind, id, team_id from budget_person where user_id = $1) p
  join budget_closed b using (kind, id, team_id)
 order by 1, 2
