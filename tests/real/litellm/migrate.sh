#!/usr/bin/env bash
# LiteLLM's own migrations that a database does not have yet, in their order: migrate.sh PSQL_URL SITE_PACKAGES [MORE.sql]
# A table of ours, in a schema of ours, says which it has, as Prisma's own would. MORE.sql is what comes after the newest of them.
set -euo pipefail
url=$1 folder=$2/litellm_proxy_extras/migrations more=${3:-}
export PGOPTIONS='-c client_min_messages=warning'
sql() { psql "$url" -XqAt -v ON_ERROR_STOP=1 "$@"; }
sql -c 'create schema if not exists real_test; create table if not exists real_test.migrated (name text primary key)'
has=$(sql -c 'select name from real_test.migrated')
find "$folder" -mindepth 1 -maxdepth 1 -type d | LC_ALL=C sort | while IFS= read -r migration; do
    file=$migration/migration.sql name=${migration##*/}
    [ -f "$file" ] && ! grep -qxF "$name" <<<"$has" || continue
    once=(-1)
    if grep -qi concurrently "$file"; then once=(); fi # not in a transaction
    sql ${once[@]+"${once[@]}"} -f "$file" </dev/null >/dev/null || { echo "failed: $name" >&2; exit 1; }
    sql -v name="$name" <<<"insert into real_test.migrated values (:'name')"
done
if [ -n "$more" ]; then sql -f "$more" >/dev/null; fi
