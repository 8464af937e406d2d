#!/bin/sh
# Makes the missing API keys of the load generator's people in the folder KEYS.
set -eu

umask 077
key() { # NAME ROLE…
    name=$1
    shift
    [ -s "$KEYS/$name.key" ] && return
    roles=
    for role in "$@"; do roles="$roles --role $role"; done
    # shellcheck disable=SC2086 - a list of options
    auditrace keys create "$name" $roles --json >"$KEYS/.$name.json"
    python -c 'import json, sys; print(json.load(sys.stdin)["key"])' <"$KEYS/.$name.json" >"$KEYS/.$name.key"
    rm "$KEYS/.$name.json"
    mv "$KEYS/.$name.key" "$KEYS/$name.key"
}

key olga operator
key omar operator approver
key ann approver
key audrey auditor
