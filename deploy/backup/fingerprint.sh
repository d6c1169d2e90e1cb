#!/bin/sh
# Prints each table of a database with its rows and a checksum over all of them: fingerprint.sh URL
# Two databases with the same lines have the same rows, in whatever order they lie.
set -eu
psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 -d "$1" <<'SQL'
-- As one moment sees them.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL TimeZone = 'UTC';
SELECT format(
  'SELECT %L, count(*), COALESCE(sum((''x'' || left(md5(t::text), 16))::bit(64)::bigint::numeric), 0) FROM public.%I t;',
  tablename, tablename)
FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename
\gexec
COMMIT;
SQL
