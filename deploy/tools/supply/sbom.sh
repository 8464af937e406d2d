#!/bin/sh
# Writes what a release consists of: build/sbom/auditrace.cdx.json (CycloneDX) and build/sbom/licenses.txt.
# The components are those of an installation from requirements/run.txt, without what only builds and tests need.
# Exit status: 0 both are written, 1 an installation failed or a licence is not allowed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../../.." && pwd)
tools=$("$here/../build.sh" supply >/dev/null && readlink -f "$top/build/bin/supply")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv --without-pip "$work/installed"
"$tools/bin/pip" --python "$work/installed/bin/python" install --quiet --disable-pip-version-check \
    --require-hashes -r "$top/requirements/run.txt"
mkdir -p "$top/build/sbom"
"$tools/bin/cyclonedx-py" environment --pyproject "$top/pyproject.toml" --output-reproducible --output-format JSON \
    --output-file "$top/build/sbom/auditrace.cdx.json" "$work/installed/bin/python"
"$tools/bin/python" "$here/licenses.py" "$top/build/sbom/auditrace.cdx.json" >"$top/build/sbom/licenses.txt" || {
    grep 'not allowed' "$top/build/sbom/licenses.txt" >&2
    exit 1
}
echo "build/sbom/auditrace.cdx.json and build/sbom/licenses.txt are written"
