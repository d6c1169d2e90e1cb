#!/bin/sh
# Keeps a finished file of Postgres's log: archive-log.sh PATH NAME LOG, as archive_command.
# Only status 0 lets Postgres forget its own copy. It may ask again for a file it has asked for (its manual, 26.3.1).
set -eu
path=$1 name=$2 log=$3

if [ -e "$log/$name" ]; then
  # Never overwritten: another server's files in the same folder would be lost.
  cmp -s "$path" "$log/$name" && exit 0
  echo "$log/$name is there already, and another" >&2
  exit 1
fi
cp "$path" "$log/.$name.partial"
sync "$log/.$name.partial"
mv "$log/.$name.partial" "$log/$name"
sync "$log"
