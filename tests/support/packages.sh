#!/bin/sh
# Installs the Debian packages that some tests need and that are missing, where that is possible (root, apt-get).
# Elsewhere those tests say loudly that they are skipped; where CI is set, they fail instead.
# Usage: packages.sh COMMAND=PACKAGE …
set -eu

missing=
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || [ -x "${pair%%=*}" ] || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "packages.sh: not installed, some tests will be skipped:$missing" >&2
    exit 0
fi
echo "packages.sh: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 - a list of names
apt-get -qq install --yes --no-install-recommends $missing >/dev/null
