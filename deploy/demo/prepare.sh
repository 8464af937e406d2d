#!/bin/sh
# Runs as root before the first start of the demonstration: makes the writing users the owners of the volumes, and
# generates a password for the database. A second run changes nothing. ROOT is for tests.
set -eu
umask 077
secrets=${ROOT:-}/secrets

# The collector's image has no such folders, so the volumes would be owned by root.
chown 10001:10001 "${ROOT:-}/queue" "${ROOT:-}/archive"

if [ ! -s "$secrets/postgres.password" ]; then
    head -c 24 /dev/urandom | base64 | tr -d '+/=' >"$secrets/.password"
    mv "$secrets/.password" "$secrets/postgres.password"
fi
# libpq accepts a password file only if its owner reads it.
printf 'postgres:5432:*:auditrace:%s\n' "$(cat "$secrets/postgres.password")" >"$secrets/pgpass"
chown 10001:10001 "$secrets/pgpass"
# The database's image reads its file as root. The other users need to pass through the folder.
chmod 755 "$secrets"
