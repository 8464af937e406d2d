"""A progress bar on standard error, for a person who waits."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from telemetry.audit.verify import Progress

_LONG_BYTES: Final = 64 << 20
_WIDTH: Final = 40
_MIB: Final = 1 << 20


@contextmanager
def reading_progress() -> Generator[Progress | None]:
    """Show how much of a long input has been read, if standard error is a terminal; remove the bar at the end."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield _show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _show(done: int, total: int) -> None:
    if total < _LONG_BYTES:
        return
    filled = _WIDTH * done // total
    bar = "#" * filled + "." * (_WIDTH - filled)
    sys.stderr.write(f"\r[{bar}] {100 * done // total:3d} %, {done // _MIB} of {total // _MIB} MiB read")
    sys.stderr.flush()
