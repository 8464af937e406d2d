"""Makes connections anew when certificates, keys or tokens were replaced, so that this needs no restart."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar

from telemetry.errors import TelemetrySettingsError
from telemetry.files import require_regular

_log = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Closeable(Protocol):
    """An object that is made from files, and closed when the files change."""

    @property
    def close(self) -> Callable[[], None]:
        """Closes it."""
        ...


T = TypeVar("T", bound=Closeable)


class Renewed(Generic[T]):
    """Holds an object that was made from files, and makes it anew when the files have changed.

    The old object stays in use while the changed files cannot be used: one of two may be replaced before the other.
    """

    def __init__(self, make: Callable[[], T], files: Sequence[Path], address: str) -> None:
        """Make the object for the first time.

        Args:
            make: reads the files; may raise OSError or ValueError.
            files: the object is made anew when one of them changes.
            address: for messages.

        Raises:
            TelemetrySettingsError: the files cannot be used.
        """
        self._make = make
        self._files = files
        self._address = address
        # Taken before the files are read, so that a change in between is seen the next time.
        self._stamp: Stamp | None = _stamp(files)
        self._unusable: Stamp | None = None
        try:
            self._made = self._make_from_files()
        except (OSError, ValueError) as error:
            raise TelemetrySettingsError(f"the files for {address} cannot be used: {error}") from error

    def current(self) -> T:
        """Return the object that was made from the present files; if they cannot be used, the one before it."""
        stamp = _stamp(self._files)
        if stamp in {self._stamp, self._unusable}:
            return self._made
        try:
            made = self._make_from_files()
        except (OSError, ValueError) as error:
            self._unusable = stamp
            _log.warning("the changed files for %s cannot be used, the old ones stay in use: %s", self._address, error)
            return self._made
        if self._stamp is not None:
            _log.info("the changed files for %s are in use", self._address)
        self._made.close()
        self._made, self._stamp, self._unusable = made, stamp, None
        return made

    def _make_from_files(self) -> T:
        # The libraries for TLS read files themselves, and would wait for a FIFO.
        # What is missing or may not be read, they say themselves.
        for file in self._files:
            if os.path.exists(file):  # noqa: PTH110 - it may be a text
                require_regular(file, os.stat(file).st_mode)  # noqa: PTH116 - as above
        return self._make()

    def forget(self) -> None:
        """Make the object anew the next time, although no file has changed."""
        self._stamp = self._unusable = None

    def close(self) -> None:
        """Close the object."""
        self._made.close()


def _stamp(files: Sequence[Path]) -> Stamp:
    """Return identity, size and time of change of each file, None for a missing one; they change with the content."""
    return tuple(_stamp_of(file) for file in files)


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
