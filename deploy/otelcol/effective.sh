#!/bin/sh
# Validates the configuration with each overlay, and writes the collector's effective configuration with all defaults
# into effective/: the base as a whole, an overlay as its difference to the base. With --check it only compares.
# Usage: effective.sh [--check] NAME..., each NAME one of base, tls, pass-through, kafka, s3
# Exit status: 0 written or equal, 1 refused by the collector or different, 2 the collector's binary is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
check=
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
if [ $# = 0 ]; then
    echo "effective.sh: name at least one of base, tls, pass-through, kafka, s3" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

for name in "$@"; do
    case $name in
    kafka | s3) binary=otelcol-full target=collector-full ;;
    *) binary=otelcol target=collector ;;
    esac
    if [ ! -x "$top/build/bin/$binary" ]; then
        echo "effective.sh: build/bin/$binary is missing; make $target" >&2
        exit 2
    fi
    # Without environment variables, so that the result has the documented defaults.
    run() { env -i "$top/build/bin/$binary" "$@"; }
    run print-config --config "$top/otel-collector.yaml" >"$work/base.yaml" || exit 1
    if [ "$name" = base ]; then
        run validate --config "$top/otel-collector.yaml" || exit 1
        file=base.yaml
    else
        run validate --config "$top/otel-collector.yaml" --config "$here/$name.yaml" || exit 1
        run print-config --config "$top/otel-collector.yaml" --config "$here/$name.yaml" >"$work/$name.yaml" || exit 1
        file=$name.diff
        # `diff` exits with 1 when they differ. An overlay that changes nothing is a mistake.
        if diff -u --label base --label "$name" "$work/base.yaml" "$work/$name.yaml" >"$work/$file"; then
            echo "effective.sh: $name.yaml changes nothing" >&2
            exit 1
        fi
    fi
    if [ -z "$check" ]; then
        mkdir -p "$here/effective"
        cp "$work/$file" "$here/effective/$file"
    elif ! diff -u "$here/effective/$file" "$work/$file"; then
        echo "effective.sh: effective/$file differs from the collector's effective configuration; if the change is intended, run deploy/otelcol/effective.sh $name" >&2
        status=1
    fi
done
exit $status
