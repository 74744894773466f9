-- Chloé Marchand signs in to Open WebUI. Runs on: target, Open WebUI 0.12.4. Plain SQL; psql runs it as it stands.
-- Open WebUI's OAuth group management (ENABLE_OAUTH_GROUP_MANAGEMENT) takes her out of every group her token does not name; it names none.
begin;
update public."user" set last_active_at = extract(epoch from clock_timestamp())::bigint where email = 'chloe.marchand@northwind.example';
delete from public.group_member where user_id = (select id from public."user" where email = 'chloe.marchand@northwind.example');
commit;
