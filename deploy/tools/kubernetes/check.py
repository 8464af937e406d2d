"""Checks Kubernetes objects against the schemas of a Kubernetes release: `check.py VERSION < objects.yaml`.

Prints a line for each problem and exits 1, or exits 0. It does not check objects of foreign API groups, such as those
of the Prometheus operator, and names them on standard error.
"""

import sys

import kubernetes_validate
import yaml

FOREIGN = ("monitoring.coreos.com/",)


def main(version: str) -> int:
    """Check the objects on standard input."""
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
