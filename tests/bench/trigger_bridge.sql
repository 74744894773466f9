-- The predecessor, as far as it costs LiteLLM anything: triggers on LiteLLM's tables that write Open WebUI's over dblink, row by row,
-- before LiteLLM's statement returns. Written anew from its description. It also hashed a password for each new person, which
-- is left out here in its favour. Runs on: LiteLLM's database; :address is dblink's of Open WebUI's.

create extension dblink;

create table sync_audit (
    id serial primary key, operation varchar(20) not null, record_id text not null, sync_result varchar(20) not null,
    old_data jsonb, new_data jsonb, error_message text, created_at timestamp default now()
);

create function sync_user_to_openwebui() returns trigger language plpgsql as $f$
begin
    perform dblink_exec(':address', format(
        'insert into "user" (id, email, name, role, settings, profile_image_url, last_active_at, created_at, updated_at)
         values (%L, %L, %L, %L, ''{}'', ''/static/p.png'', 1, 1, 1)
         on conflict (id) do update set email = excluded.email, name = excluded.name, role = excluded.role;
         insert into auth (id, email, password, active) values (%1$L, %2$L, '''', true)
         on conflict (id) do update set email = excluded.email',
        'usr_' || new.user_id, new.user_email, coalesce(new.user_alias, 'User'),
        case when new.user_role in ('proxy_admin', 'proxy_admin_viewer') then 'admin' else 'user' end));
    insert into sync_audit (operation, record_id, sync_result) values ('SYNC_USER', new.user_id, 'SUCCESS');
    return new;
end $f$;

create function sync_api_key_to_webui() returns trigger language plpgsql as $f$
begin
    perform dblink_exec(':address', format(
        'insert into api_key (id, user_id, key, created_at, updated_at) values (%L, %L, %L, 1, 1)
         on conflict (id) do update set key = excluded.key',
        'key_' || new.user_id, 'usr_' || new.user_id, new.token));
    insert into sync_audit (operation, record_id, sync_result) values ('SYNC_API_KEY', new.user_id, 'SUCCESS');
    return new;
end $f$;

create trigger user_sync_trigger after insert or update on "LiteLLM_UserTable"
    for each row execute function sync_user_to_openwebui();
create trigger trigger_sync_api_key_to_webui after insert or update on "LiteLLM_VerificationToken"
    for each row when (new.user_id is not null) execute function sync_api_key_to_webui();
