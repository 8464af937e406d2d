#!/bin/sh
# Builds the trace and log backends that the tests query, once per user, and links them in build/bin.
# Each folder beside this file is one backend: its go.mod names program and version, its go.sum the checksums.
# Usage: build.sh [NAME...]; without names all of them.
# Exit status: 0 the links are in place, 1 a build failed, 2 Go is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/../cached_build.sh"
if [ $# = 0 ]; then
    set -- jaeger victoria-logs
fi

for name in "$@"; do
    module=$here/$name
    if [ ! -f "$module/go.mod" ]; then
        echo "build.sh: there is no backend $name; they are the folders of $here" >&2
        exit 1
    fi
    case $name in
    jaeger) takes='about 8 minutes on two idle cores' ;;
    victoria-logs) takes='about a minute on two idle cores' ;;
    *) takes='some minutes' ;;
    esac
    build_go "$name" "$module" "$(sed -n 's/^tool //p' "$module/go.mod")" '' 1.26.5 "$takes"
done
