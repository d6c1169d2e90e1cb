#!/bin/sh
# Restores a dump into an empty database: restore-dump.sh URL FILE
# JOBS (2) tables and indexes at once. After a failure drop the database, make it anew, and try again.
set -eu
url=$1 file=$2

(cd "$(dirname "$file")" && sha256sum --check --quiet "$(basename "$file").sha256")
tables=$(psql -X -A -t -d "$url" -c "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
if [ "$tables" -ne 0 ]; then
  echo "$tables tables are there already: restore into an empty database" >&2
  exit 1
fi
pg_restore --dbname="$url" --exit-on-error --no-owner --no-privileges --jobs="${JOBS:-2}" "$file"
# Without it the planner knows nothing of the tables.
psql -X -q -d "$url" -c 'ANALYZE'
