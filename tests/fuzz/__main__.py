"""Looks for bytes that break a target, with atheris: `python -m tests.fuzz TARGET [OPTION OF LIBFUZZER…]`.

New inputs are kept in build/fuzz/TARGET. Copy those that broke something to tests/fuzz/corpus/TARGET.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["service", "telemetry", "jwt", "msgspec"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


def main(target: str, *options: str) -> None:
    """Run until an input breaks the target, or an option ends it, such as `-max_total_time=600`."""
    found = Path("build", "fuzz", target)
    found.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={found}/", str(found), str(CORPUS / target)], TARGETS[target]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
