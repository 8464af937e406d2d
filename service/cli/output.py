"""What commands print: JSON for machines, aligned columns for people."""

import os
import sys
from collections.abc import Sequence

import msgspec


def print_json(value: object) -> None:
    """Print one JSON document, indented, on standard output."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_line(text: str = "") -> None:
    """Print one line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_line(text: str) -> None:
    """Print one line of a process that runs on; nothing fails when nobody reads it any more."""
    try:
        print_line(text)
    except OSError:
        # What is left in the buffer would fail again at the end, and change the exit status.
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings, in columns as wide as need be."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())
