#!/bin/sh
# Builds the trace and log backends that the tests ask, once per user, and links them in build/bin.
# Each folder beside this file is one backend: its go.mod names program and version, its go.sum the checksums.
# Usage: build.sh [NAME...]; without names all of them.
# Exit status: 0 the links are in place, 1 a build failed, 2 Go is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/auditrace/backends
if [ $# = 0 ]; then
    set -- jaeger victoria-logs
fi

for name in "$@"; do
    module=$here/$name
    if [ ! -f "$module/go.mod" ]; then
        echo "build.sh: there is no backend $name; they are the folders of $here" >&2
        exit 1
    fi
    # Both files are in the folder's name, so that another version of any dependency is another build.
    hash=$(cat "$module/go.mod" "$module/go.sum" | sha256sum | cut -c 1-12)
    finished=$cache/$name-$hash/$name
    if [ ! -x "$finished" ]; then
        if ! command -v go >/dev/null 2>&1; then
            echo "build.sh: Go is missing; install Go 1.26.5 or newer (your distribution's package, or the Go project's download page) and run this again" >&2
            exit 2
        fi
        mkdir -p "$cache"
        # Inside the cache folder, because a rename is atomic only within one file system.
        work=$(mktemp -d "$cache/.build.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        case $name in
        jaeger) takes='about 8 minutes on two idle cores' ;;
        victoria-logs) takes='about a minute on two idle cores' ;;
        *) takes='some minutes' ;;
        esac
        echo "build.sh: building $name, $takes" >&2
        program=$(sed -n 's/^tool //p' "$module/go.mod")
        # CGO_ENABLED=0: no C compiler needed, and the binary runs anywhere. What is kept must start: hence the last step.
        if ! {
            (cd "$module" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags '-s -w' -o "$work/$name" "$program") &&
                "$work/$name" --help
        } >"$work/log" 2>&1; then
            tail -n 20 "$work/log" >&2
            mv -f "$work/log" "$cache/failed-$name.log"
            echo "build.sh: the build of $name failed; the whole log is $cache/failed-$name.log" >&2
            exit 1
        fi
        mkdir -p "$cache/$name-$hash"
        mv -f "$work/$name" "$finished"
        rm -rf "$work"
    fi
    mkdir -p "$top/build/bin"
    # Made beside and renamed, so that a test that starts the binary now never finds the name missing.
    ln -s "$finished" "$top/build/bin/.$name.$$"
    mv -f "$top/build/bin/.$name.$$" "$top/build/bin/$name"
    echo "$top/build/bin/$name -> $finished"
done
