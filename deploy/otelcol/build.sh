#!/bin/sh
# Builds the collector of a builder manifest once per user and links it under the manifest's name in build/bin.
# Usage: build.sh [MANIFEST], a file of this folder; without one builder.yaml, the collector that the tests need.
# Exit status: 0 the link is in place, 1 the build failed, 2 Go is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
manifest=$here/${1:-builder.yaml}
if [ ! -f "$manifest" ]; then
    echo "build.sh: there is no $manifest; name a builder manifest of $here" >&2
    exit 1
fi
name=$(sed -n 's/^  name: *//p' "$manifest")
version=$(sed -n 's/^  version: *//p' "$manifest")
# The manifest's hash is in the folder's name, so that another choice of components is another build.
hash=$(sha256sum "$manifest" | cut -c 1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/auditrace/otelcol
finished=$cache/$version-$hash/$name

if [ ! -x "$finished" ]; then
    if ! command -v go >/dev/null 2>&1; then
        echo "build.sh: Go is missing; install Go 1.25 or newer (your distribution's package, or the Go project's download page) and run this again" >&2
        exit 2
    fi
    mkdir -p "$cache"
    # Inside the cache folder, because a rename is atomic only within one file system.
    work=$(mktemp -d "$cache/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    case $name in
    otelcol) takes='about 2 minutes on two idle cores' ;;
    *) takes='some minutes' ;;
    esac
    echo "build.sh: building $name $version, $takes" >&2
    # CGO_ENABLED=0: a static binary, which also runs in an empty container image.
    export CGO_ENABLED=0
    # The builder's output folder is a setting of its file; the copy gets it, so that the clone stays clean.
    sed "s|^dist:|&\n  output_path: $work/source|" "$manifest" >"$work/builder.yaml"
    # Joined by &&, because `set -e` has no effect in a condition. What is kept must start: hence the last step.
    if ! {
        GOBIN=$work go install "go.opentelemetry.io/collector/cmd/builder@v$version" &&
            "$work/builder" --config "$work/builder.yaml" --ldflags '-s -w' &&
            "$work/source/$name" components
    } >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        mv -f "$work/log" "$cache/failed.log"
        echo "build.sh: the build failed; the whole log is $cache/failed.log" >&2
        exit 1
    fi
    mkdir -p "$cache/$version-$hash"
    mv -f "$work/source/$name" "$finished"
fi

mkdir -p "$top/build/bin"
# Made beside and renamed, so that a test that starts the binary now never finds the name missing.
ln -s "$finished" "$top/build/bin/.$name.$$"
mv -f "$top/build/bin/.$name.$$" "$top/build/bin/$name"
echo "$top/build/bin/$name -> $finished"
