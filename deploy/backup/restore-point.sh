#!/bin/sh
# Fills an empty data directory from a base backup and the log: restore-point.sh FOLDER LOG DATA [TIME]
# TIME, such as '2031-01-31 12:00:00+00', is the last moment that comes back; without it all that LOG has. The newest base backup
# before TIME is taken. Run it as Postgres's user, then start the server on DATA: it reads LOG and accepts writes when it is done.
set -eu
folder=$1 log=$2 data=$3 time=${4:-}

until=9
[ -z "$time" ] || until=$(date -u -d "$time" +%Y%m%dT%H%M%SZ)
name=$(ls -1 "$folder" | grep '^base-' | sort | awk -v until="base-$until" '$0 <= until' | tail -n 1)
if [ -z "$name" ]; then
  echo "no base backup in $folder is from before $time" >&2
  exit 1
fi
if [ -e "$data" ] && [ -n "$(ls -A "$data")" ]; then
  echo "$data is not empty" >&2
  exit 1
fi

mkdir -p "$data"
chmod 700 "$data"
tar -xzf "$folder/$name/base.tar.gz" -C "$data"
tar -xzf "$folder/$name/pg_wal.tar.gz" -C "$data/pg_wal"
cp "$folder/$name/backup_manifest" "$data/"
pg_verifybackup --quiet "$data"

{
  echo "restore_command = 'cp \"$log/%f\" \"%p\"'"
  echo "recovery_target_action = 'promote'"
  [ -z "$time" ] || echo "recovery_target_time = '$time'"
} >>"$data/postgresql.auto.conf"
touch "$data/recovery.signal"
echo "$name"
