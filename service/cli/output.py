"""Prints what commands answer: JSON for programs, lines for people; and handles a reader that has gone away."""

import argparse
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TextIO

import msgspec

from service.errors import SettingsError
from telemetry.urls import hidden

_STREAMS: Final = (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))


def print_answer(arguments: argparse.Namespace, document: object, lines: Sequence[str]) -> None:
    """Print the document as JSON if `--json` is given, else the lines; on standard output."""
    if arguments.json:
        lines = [msgspec.json.format(msgspec.json.encode(document), indent=2).decode()]
    for line in lines:
        print_line(line)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; each column is as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def print_line(text: str) -> None:
    """Print one line on standard output, at once. A closed pipe (`| head`) is not an error.

    Raises:
        SettingsError: standard output cannot be written.
    """
    with suppress(BrokenPipeError), printing():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def say_line(text: str) -> None:
    """Print one line of a long-running process; no error when standard output cannot be written."""
    with suppress(SettingsError):
        print_line(text)


def print_error(text: str) -> None:
    """Print one line on standard error; no error when it cannot be written, because the exit status says the same."""
    try:
        sys.stderr.write(hidden(text) + "\n")
        sys.stderr.flush()
    except OSError:
        _redirect_to_nowhere(sys.stderr)


@contextmanager
def printing() -> Generator[None]:
    """Translate errors of writing standard output within the block, so that the command decides the exit status.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        SettingsError: standard output cannot be written.
    """
    try:
        yield
    except OSError as error:
        _redirect_to_nowhere(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise SettingsError([f"standard output cannot be written: {error.strerror}"]) from error


def hold_standard_streams() -> None:
    """Open the null device at each of the descriptors 0 to 2 that the parent process has closed.

    Otherwise a file or socket of the service would get such a descriptor, and a child process would write its output
    there. Writing to standard output then fails; standard error is discarded.
    """
    for descriptor, (name, mode, flags) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            # `os.open` returns the lowest free descriptor, which is this one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _redirect_to_nowhere(stream: TextIO) -> None:
    """Discard what is left in the buffer. Python would write it again at exit, fail, and change the exit status."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
