#!/bin/sh
# Loads every record of an archive into an OpenSearch, in one index for each month of UTC, ss4o_logs-auditrace-2026-01,
# with the mapping that the queries of docs/correlation.md need. A second run adds what is new, also the records that the
# collector wrote meanwhile. Credentials and TLS come from curl's settings in ~/.curlrc.
# Usage: load.sh ARCHIVE URL; ARCHIVE is a .jsonl file, plain or gzip, or a folder of them; URL such as https://opensearch:9200
# Exit status: 0 all records are loaded, 1 a record was refused or could not be read.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
if [ $# != 2 ]; then
    echo "usage: load.sh ARCHIVE URL" >&2
    exit 1
fi
archive=$1
url=${2%/}
for tool in curl jq split zcat; do
    command -v "$tool" >/dev/null 2>&1 || { echo "load.sh: $tool is missing; install it and run this again" >&2 && exit 1; }
done
if [ -f "$archive" ]; then
    set -- "$archive"
else
    set -- "$archive"/*.jsonl*
fi
if [ ! -f "$1" ]; then
    echo "load.sh: there is no archive in $archive; name the folder that AUDIT_ARCHIVE_DIR names, or a file of it" >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

send() { # METHOD ADDRESS TYPE FILE
    curl --silent --show-error --fail-with-body --request "$1" --header "Content-Type: $3" --data-binary "@$4" "$url/$2"
}

if ! send PUT _index_template/auditrace application/json "$here/template.json" >"$work/answer"; then
    echo "load.sh: $url did not take the index template: $(cat "$work/answer")" >&2
    exit 1
fi
records=0
new=0
status=0
for file in "$@"; do
    zcat -f "$file" >"$work/lines"
    # After a line that a crash has cut short, the next line begins without a line break.
    sed 's/{"resourceLogs":/\n&/g' "$work/lines" | jq -cR -f "$here/bulk.jq" >"$work/documents"
    # Two lines are one record, at most about 200 KiB. A part is far below the 100 MB limit of a request.
    split -a 6 -l 400 "$work/documents" "$work/part."
    for part in "$work"/part.*; do
        [ -e "$part" ] || continue
        if ! send POST _bulk application/x-ndjson "$part" >"$work/answer"; then
            echo "load.sh: $url refused a request: $(cat "$work/answer")" >&2
            exit 1
        fi
        # 409: there is already a record with this id.
        refused=$(jq -r '[.items[].create | select(.status != 201 and .status != 409)]
            | if . == [] then empty else "\(length) records, the first is \(.[0] | {_id, error} | tojson)" end' "$work/answer")
        if [ -n "$refused" ]; then
            # Continue with the others: a record that OpenSearch never accepts must not block them.
            printf 'load.sh: refused: %s\n' "$refused" >&2
            status=1
        fi
        new=$((new + $(jq '[.items[] | select(.create.status == 201)] | length' "$work/answer")))
        rm "$part"
    done
    records=$((records + $(wc -l <"$work/documents") / 2))
done
# Make the records searchable now, not only after the next refresh.
: >"$work/nothing"
if ! send POST ss4o_logs-auditrace-*/_refresh application/json "$work/nothing" >"$work/answer"; then
    echo "load.sh: $url: $(cat "$work/answer")" >&2
    exit 1
fi
echo "records: $records, new: $new"
exit $status
