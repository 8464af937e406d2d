#!/bin/sh
# Builds the collector of a builder manifest once per user and links it under the manifest's name in build/bin.
# Usage: build.sh [MANIFEST], a file of this folder; without one builder.yaml, the collector that the tests need.
# Exit status: 0 the link is in place, 1 the build failed, 2 Go is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/../cached_build.sh"
manifest=$here/${1:-builder.yaml}
if [ ! -f "$manifest" ]; then
    echo "build.sh: there is no $manifest; name a builder manifest of $here" >&2
    exit 1
fi
name=$(sed -n 's/^  name: *//p' "$manifest")
version=$(sed -n 's/^  version: *//p' "$manifest")
# The manifest's hash is in the folder's name, so that another choice of components is another build.
finished=$cache/$version-$(short_hash "$manifest")/$name

collector() {
    # The last step checks that the collector starts.
    GOBIN=$work go install "go.opentelemetry.io/collector/cmd/builder@v$version" &&
        "$work/builder" --config "$work/builder.yaml" --ldflags '-s -w' &&
        "$work/source/$name" components
}

if [ ! -x "$finished" ]; then
    require_go 1.25
    make_work_folder
    case $name in
    otelcol) takes='about 2 minutes on two idle cores' ;;
    *) takes='some minutes' ;;
    esac
    echo "build.sh: building $name $version, $takes" >&2
    # CGO_ENABLED=0: a static binary, which also runs in an empty container image.
    export CGO_ENABLED=0
    # The builder's output folder is a setting of its file. The copy gets it, so that the clone stays clean.
    sed "s|^dist:|&\n  output_path: $work/source|" "$manifest" >"$work/builder.yaml"
    run_logged "$name" collector
    mkdir -p "$(dirname -- "$finished")"
    mv -f "$work/source/$name" "$finished"
fi
link "$name" "$finished"
