"""Judges Kubernetes objects by the schemas of a Kubernetes release: `check.py VERSION < objects.yaml`.

Prints a line for each thing that is wrong and exits 1, or exits 0. Objects of other groups than Kubernetes's own, such
as those of the Prometheus operator, are not judged, and named on standard error.
"""

import sys

import kubernetes_validate
import yaml

FOREIGN = ("monitoring.coreos.com/",)


def main(version: str) -> int:
    """Judge the objects on standard input."""
    wrong = 0
    for thing in yaml.safe_load_all(sys.stdin):
        if thing is None:
            continue
        name = f"{thing['kind']} {thing['metadata']['name']}"
        if thing["apiVersion"].startswith(FOREIGN):
            sys.stderr.write(f"not judged: {name}\n")
            continue
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong += 1
            sys.stdout.write(f"{name}: {'.'.join(map(str, error.path))}: {error.message}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
