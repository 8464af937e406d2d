#!/bin/sh
# Starts the node that build.sh put beside this file. Usage: opensearch FOLDER PORT
set -eu

here=$(dirname -- "$(readlink -f -- "$0")")
exec java -Xms256m -Xmx512m -XX:+UseSerialGC -Dlog4j2.level=INFO -cp "$here/classes:$here/lib/*" OneNode "$@"
