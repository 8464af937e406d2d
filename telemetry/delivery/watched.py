"""Makes connections anew when certificates, keys or tokens were replaced, so that nobody has to restart for it."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar

_log = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Closeable(Protocol):
    """Something that is made from files and given up when they change."""

    def close(self) -> None:
        """Give it up."""
        ...


T = TypeVar("T", bound=Closeable)


class Renewed(Generic[T]):
    """Holds what was made from files, and makes it anew once they have changed.

    While the changed files cannot be used (one of two is replaced, the other not yet), what was made before stays.
    """

    def __init__(self, make: Callable[[], T], files: Sequence[Path], address: str) -> None:
        """Make it for the first time.

        Args:
            make: reads the files; may raise OSError or ValueError.
            files: whose change counts.
            address: for the log.

        Raises:
            OSError, ValueError: the files cannot be used.
        """
        self._make = make
        self._files = files
        self._address = address
        # Taken before the files are read: a change in between is seen the next time.
        self._stamp: Stamp | None = _stamp(files)
        self._unusable: Stamp | None = None
        self._made = make()

    def current(self) -> T:
        """Return what the present files make, or else what the last usable ones made."""
        stamp = _stamp(self._files)
        if stamp in {self._stamp, self._unusable}:
            return self._made
        try:
            made = self._make()
        except (OSError, ValueError) as error:
            self._unusable = stamp
            _log.warning("the changed files for %s cannot be used, going on with the old: %s", self._address, error)
            return self._made
        if self._stamp is not None:
            _log.info("the changed files for %s are in use", self._address)
        self._made.close()
        self._made, self._stamp, self._unusable = made, stamp, None
        return made

    def forget(self) -> None:
        """Make it anew the next time, although no file has changed."""
        self._stamp = self._unusable = None

    def close(self) -> None:
        """Give it up."""
        self._made.close()


def _stamp(files: Sequence[Path]) -> Stamp:
    """Return what tells a version of these files from another: identity, size and time of change; None if missing."""
    return tuple(_stamp_of(file) for file in files)


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
