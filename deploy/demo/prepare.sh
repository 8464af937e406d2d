#!/bin/sh
# Before the first start of the demonstration: gives the volumes to the users that write to them, and makes up a
# password for the database. Runs as root, and changes nothing the next time. ROOT is for tests.
set -eu
umask 077
secrets=${ROOT:-}/secrets

# The collector's image has no folders of its own, so its volumes would stay root's.
chown 10001:10001 "${ROOT:-}/queue" "${ROOT:-}/archive"

if [ ! -s "$secrets/postgres.password" ]; then
    head -c 24 /dev/urandom | base64 | tr -d '+/=' >"$secrets/.password"
    mv "$secrets/.password" "$secrets/postgres.password"
fi
# libpq takes a password file from its owner only.
printf 'postgres:5432:*:auditrace:%s\n' "$(cat "$secrets/postgres.password")" >"$secrets/pgpass"
chown 10001:10001 "$secrets/pgpass"
# The database's image reads its file as root; the others look through the folder.
chmod 755 "$secrets"
