-- Records an entity that could not be written. Runs on: target, in the batch's transaction.
-- $1 kind, $2 key, $3 operation, $4 sqlstate, $5 reason, $6 now (timestamptz), $7 end of the batch (pg_lsn).
-- Critical: somebody keeps more than LiteLLM gives them. The audit row is written once per entity and
-- reason, not once per retry.
with known as (
    select reason from dead_letter where kind = $1 and key = $2
), judged as (
    select case $1
        when 'account' then exists (
            select from account a left join person p on p.user_id = a.user_id and p.unusable_because is null
             where a.user_id = $2 and a.active
               and (p.user_id is null or (a.gave_admin and p.user_role is distinct from 'proxy_admin')))
        when 'access' then exists (select from effective_access where user_id = $2)
        -- A key of ours that should be gone.
        when 'api_key' then exists (
            select from account a join minted_key m on m.webui_id = coalesce(a.webui_id, 'usr_' || a.user_id)
             where a.user_id = $2
               and not exists (select from litellm_user u join personal_key k using (user_id)
                                where u.user_id = $2 and key_is_usable(k.blocked, k.expires, $6)))
        else exists (
            select from group_link l join member m on m.group_id = l.webui_id
              left join account by_id on by_id.webui_id = m.user_id
              left join account by_user on by_user.webui_id is null and by_user.user_id = substr(m.user_id, 5)
             where l.kind = $1 and l.litellm_id = $2
               and not exists (select from desired_member d
                                where d.kind = $1 and d.litellm_id = $2
                                  and d.user_id = coalesce(by_id.user_id, by_user.user_id)))
    end as critical
), letter as (
    insert into dead_letter (kind, key, operation, sqlstate, reason, critical, first_seen, last_seen)
    select $1, $2, $3, $4, $5, critical, $6, $6 from judged
    on conflict (kind, key) do update
        set operation = excluded.operation, sqlstate = excluded.sqlstate, reason = excluded.reason,
            critical = excluded.critical, last_seen = excluded.last_seen, attempts = dead_letter.attempts + 1
)
insert into sync_audit (operation, record_id, sync_result, error_message, created_at, lsn)
select $3, $2, 'FAILED', $5, $6, $7 where not exists (select from known where reason = $5)
