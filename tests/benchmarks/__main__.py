"""Runs the benchmarks: `python -m tests.benchmarks [NAME…] [--small]`; exit status 1 when one misses its goal."""

import argparse
import sys

from tests.benchmarks import isolation, verify, verify_memory, writes

BENCHMARKS = {
    "isolation": isolation.measure,
    "verify": verify.measure,
    "verify-memory": verify_memory.measure,
    "writes": writes.measure,
}


def main() -> int:
    """Run the benchmarks that were asked for, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--small", action="store_true", help="a size that takes seconds, to see that it works")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - BENCHMARKS.keys())
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    missed = [name for name in arguments.names or BENCHMARKS if not _run(name, is_small=arguments.small)]
    return 1 if missed else 0


def _run(name: str, *, is_small: bool) -> bool:
    sys.stdout.write(f"== {name}\n")
    is_met = True
    for line in BENCHMARKS[name](is_small=is_small):
        is_met = is_met and not line.startswith("MISSED")
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return is_met


if __name__ == "__main__":
    sys.exit(main())
