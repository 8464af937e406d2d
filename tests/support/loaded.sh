#!/usr/bin/env bash
# Runs all tests three times while stress-ng keeps twice as many processors busy as there are: a test that passes only
# on a quiet machine fails here. stress-ng runs in a session of its own, as from another terminal.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v stress-ng >/dev/null || { echo "loaded.sh: stress-ng is missing: install it" >&2; exit 1; }
setsid stress-ng --cpu "$((2 * $(nproc)))" --timeout 0 >/dev/null &
stress=$!
trap 'kill "$stress"' EXIT
for run in 1 2 3; do
  make test
  kill -0 "$stress" || { echo "stress-ng has ended: run $run was not beside it" >&2; exit 1; }
  echo "run $run of 3 has passed beside stress-ng"
done
