#!/bin/sh
# Builds one OpenSearch node for the tests, once per user, and links it as build/bin/opensearch.
# pom.xml names the libraries and their versions, jars.sha256 the checksums, OneNode.java the settings.
# Usage: build.sh [--write-checksums], which writes the checksums of the present libraries of pom.xml.
# Exit status: 0 the link is in place, 1 the build failed, 2 Maven or the Java compiler is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/../cached_build.sh"
# All of them are in the folder's name, so that another version of any is another build.
hash=$(short_hash "$here/pom.xml" "$here/jars.sha256" "$here/OneNode.java" "$here/opensearch.sh")
finished=$cache/opensearch-$hash

fetch() {
    nice -n 10 mvn --batch-mode --file "$here/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime "-DoutputDirectory=$work/lib"
}

node() {
    # Every library must have a checksum, and every checksum a library: Maven must not bring others.
    fetch &&
        (cd "$work/lib" && sha256sum --check --strict "$here/jars.sha256" &&
            test "$(ls | wc -l)" = "$(wc -l <"$here/jars.sha256")") &&
        javac --release 17 -cp "$work/lib/*" -d "$work/classes" "$here/OneNode.java" &&
        install -m 755 "$here/opensearch.sh" "$work/opensearch"
}

if [ ! -x "$finished/opensearch" ] || [ "${1:-}" = --write-checksums ]; then
    for tool in mvn javac; do
        if ! command -v $tool >/dev/null 2>&1; then
            echo "build.sh: $tool is missing; install Maven and a JDK of Java 17 or newer and run this again" >&2
            exit 2
        fi
    done
    make_work_folder
    echo "build.sh: fetching the libraries of OpenSearch, some 45 MB, about half a minute" >&2
    if [ "${1:-}" = --write-checksums ]; then
        fetch >&2
        (cd "$work/lib" && sha256sum -- *.jar) >"$here/jars.sha256"
        exit 0
    fi
    run_logged opensearch node
    rm "$work/log"
    chmod 755 "$work"
    mv -T "$work" "$finished" || [ -x "$finished/opensearch" ]
fi
link opensearch "$finished/opensearch"
