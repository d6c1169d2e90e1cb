#!/bin/sh
# Makes a base backup of a server: base.sh URL FOLDER LOG [KEEP]
# FOLDER/base-TIME appears when it is whole; then all but the KEEP (4) newest are removed, and what of LOG only they needed.
set -eu
url=$1 folder=$2 log=$3 keep=${4:-4}

mkdir -p "$folder"
partial=$folder/.base.$$.partial
trap 'rm -rf "$partial"' EXIT

# With the log of its own time, so that it can be restored even if LOG is lost; the manifest is what a restore is checked against.
pg_basebackup --dbname="$url" --pgdata="$partial" --format=tar --gzip --wal-method=stream --checkpoint=fast \
  --manifest-checksums=SHA256
# Named by its end: no moment before that can be restored from it.
name=base-$(date -u +%Y%m%dT%H%M%SZ)
mv "$partial" "$folder/$name"
sync "$folder"
echo "$folder/$name"

ls -1 "$folder" | grep '^base-' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
  rm -rf "${folder:?}/$old"
done
oldest=$(ls -1 "$folder" | grep '^base-' | sort | head -n 1)
first=$(tar -xzOf "$folder/$oldest/base.tar.gz" backup_label | sed -n 's/^START WAL LOCATION: .*(file \(.*\))$/\1/p')
pg_archivecleanup "$log" "$first"
