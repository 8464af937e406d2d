#!/bin/sh
# Writes every audit record of an OpenSearch to standard output, one hit a line, in a form that `auditrace verify` reads.
# Usage: export.sh URL [HITS]; URL such as https://opensearch:9200; HITS is the number for each request, default 1000
# Exit status: 0 all records are written, 1 a request failed and records are missing.
set -eu

if [ $# != 1 ] && [ $# != 2 ]; then
    echo "usage: export.sh URL [HITS]" >&2
    exit 1
fi
url=${1%/}
page=$(mktemp)
trap 'rm -f "$page"' EXIT

ask() { # ADDRESS QUERY
    if ! curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' --data "$2" "$url/$1" >"$page"; then
        echo "export.sh: $url answered: $(cat "$page")" >&2
        exit 1
    fi
}

ask 'ss4o_logs-auditrace-*/_search?scroll=5m' \
    '{"size": '"${2:-1000}"', "query": {"exists": {"field": "attributes.audit.record.id"}}, "sort": ["_doc"]}'
while [ "$(jq '.hits.hits | length' "$page")" != 0 ]; do
    # The records of a failed shard would be missing without an error.
    if [ "$(jq '._shards.failed' "$page")" != 0 ]; then
        echo "export.sh: $url could not read every shard: $(jq -c '._shards' "$page")" >&2
        exit 1
    fi
    jq -c '.hits.hits[]' "$page"
    ask _search/scroll "$(jq -c '{scroll: "5m", scroll_id: ._scroll_id}' "$page")"
done
