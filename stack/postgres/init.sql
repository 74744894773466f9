-- Once, when the volume is made: two databases, each with an owner of its own, and the daemon's role. Runs in psql as the
-- superuser; the passwords come from the environment.

\getenv litellm_password LITELLM_DB_PASSWORD
\getenv webui_password WEBUI_DB_PASSWORD
\getenv sync_password SYNC_DB_PASSWORD

create role litellm login password :'litellm_password';
create role webui login password :'webui_password';
create role sync login replication password :'sync_password';

create database litellm owner litellm;
create database webui owner webui;

-- Each product sees its own database only.
revoke all on database litellm, webui, postgres from public;
grant connect, temporary on database webui to sync;
grant connect on database litellm to sync;
