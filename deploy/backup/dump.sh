#!/bin/sh
# Dumps a database: dump.sh URL FOLDER [KEEP]
# FOLDER/weir-TIME.dump appears with its checksum beside it when it is whole; then all but the KEEP (7) newest are removed.
set -eu
url=$1 folder=$2 keep=${3:-7}

mkdir -p "$folder"
name=weir-$(date -u +%Y%m%dT%H%M%SZ).dump
partial=$folder/.$name.partial
trap 'rm -f "$partial"' EXIT

# One snapshot, without holding up anybody's writes; compressed. Owners are those of whoever restores it.
pg_dump --dbname="$url" --format=custom --no-owner --no-privileges --file="$partial"
# A dump whose contents cannot be listed is none.
pg_restore --list "$partial" >/dev/null
sync "$partial"
mv "$partial" "$folder/$name"
(cd "$folder" && sha256sum "$name" >"$name.sha256")
sync "$folder"
echo "$folder/$name"

# The names sort by time.
ls -1 "$folder" | grep '^weir-.*\.dump$' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
  rm -f "$folder/$old" "$folder/$old.sha256"
done
