-- The administrator who signed up first in an Open WebUI. Runs on: target, every layout from 0.6.30 to 0.12.4.
-- The password is "testbed".
insert into public."user" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at)
values ('0a1b2c3d-0000-4000-8000-00000000ad01', 'Local Admin', 'admin@testbed.example', 'admin', '/user.png',
        extract(epoch from now())::bigint, extract(epoch from now())::bigint, extract(epoch from now())::bigint);
insert into public.auth (id, email, password, active)
values ('0a1b2c3d-0000-4000-8000-00000000ad01', 'admin@testbed.example',
        '$2b$10$kw9eaByw47OjkHLxv4QRqOX8BWFkZXJiO7whs3dDlUhReryqQDHIq', true);
