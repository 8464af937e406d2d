"""What commands print: JSON for machines, aligned columns for people; and what becomes of it when nobody takes it."""

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TextIO

import msgspec

from service.errors import SettingsError

_STREAMS: Final = (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))


def print_json(value: object) -> None:
    """Print one JSON document, indented, on standard output."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    print_line(text.decode())


def print_line(text: str = "") -> None:
    """Print one line on standard output, at once; a reader that is gone (`| head`) has seen enough.

    Raises:
        SettingsError: standard output cannot be written.
    """
    with suppress(BrokenPipeError), printing():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def say_line(text: str) -> None:
    """Print one line of a process that runs on; nothing fails when nobody reads it any more."""
    with suppress(SettingsError):
        print_line(text)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings, in columns as wide as need be."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())


def print_error(text: str) -> None:
    """Print one line on standard error; the exit status says the same when it cannot be written."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        _redirect_to_nowhere(sys.stderr)


@contextmanager
def printing() -> Generator[None]:
    """Write to standard output within the block, and make sure that the exit status stays what the command decides.

    Raises:
        BrokenPipeError: whoever read it is gone.
        SettingsError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        _redirect_to_nowhere(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise SettingsError([f"standard output cannot be written: {error.strerror}"]) from error


def hold_standard_streams() -> None:
    """Take the numbers 0 to 2 where whoever started this process has closed them.

    A file or socket of the service would get such a number, and what a child process writes to it. Standard output
    can then not be written; standard error goes nowhere.
    """
    for descriptor, (name, mode, flags) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest number that is free, which is this one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _redirect_to_nowhere(stream: TextIO) -> None:
    """Have what is left in the buffer go nowhere: it would fail again at the end, and change the exit status."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
