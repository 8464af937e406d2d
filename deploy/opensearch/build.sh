#!/bin/sh
# Builds one OpenSearch node for the tests, once per user, and links it as build/bin/opensearch.
# pom.xml names the libraries and their versions, jars.sha256 the checksums, OneNode.java the settings.
# Usage: build.sh [--write-checksums], which takes the checksums of what pom.xml brings now.
# Exit status: 0 the link is in place, 1 the build failed, 2 Maven or the Java compiler is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/auditrace/opensearch
# All of them are in the folder's name, so that another version of any is another build.
hash=$(cat "$here/pom.xml" "$here/jars.sha256" "$here/OneNode.java" "$here/opensearch.sh" | sha256sum | cut -c 1-12)
finished=$cache/opensearch-$hash

if [ ! -x "$finished/opensearch" ] || [ "${1:-}" = --write-checksums ]; then
    for tool in mvn javac; do
        if ! command -v $tool >/dev/null 2>&1; then
            echo "build.sh: $tool is missing; install Maven and a JDK of Java 17 or newer and run this again" >&2
            exit 2
        fi
    done
    mkdir -p "$cache"
    # Inside the cache folder, because a rename is atomic only within one file system.
    work=$(mktemp -d "$cache/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "build.sh: fetching the libraries of OpenSearch, some 45 MB, about half a minute" >&2
    fetch() {
        nice -n 10 mvn --batch-mode --file "$here/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime "-DoutputDirectory=$work/lib"
    }
    if [ "${1:-}" = --write-checksums ]; then
        fetch >&2
        (cd "$work/lib" && sha256sum -- *.jar) >"$here/jars.sha256"
        exit 0
    fi
    # A checksum for every file and a file for every checksum: a library that came by itself is none of ours.
    if ! {
        fetch &&
            (cd "$work/lib" && sha256sum --check --strict "$here/jars.sha256" &&
                test "$(ls | wc -l)" = "$(wc -l <"$here/jars.sha256")") &&
            javac --release 17 -cp "$work/lib/*" -d "$work/classes" "$here/OneNode.java" &&
            install -m 755 "$here/opensearch.sh" "$work/opensearch"
    } >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        mv -f "$work/log" "$cache/failed.log"
        echo "build.sh: the build failed; the whole log is $cache/failed.log" >&2
        exit 1
    fi
    rm "$work/log"
    chmod 755 "$work"
    mv -T "$work" "$finished" || [ -x "$finished/opensearch" ]
fi

mkdir -p "$top/build/bin"
# Made beside and renamed, so that a test that starts the node now never finds the name missing.
ln -s "$finished/opensearch" "$top/build/bin/.opensearch.$$"
mv -f "$top/build/bin/.opensearch.$$" "$top/build/bin/opensearch"
echo "$top/build/bin/opensearch -> $finished/opensearch"
