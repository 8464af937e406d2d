"""What commands print: JSON for machines, aligned columns for people."""

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


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings, in columns as wide as need be."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_line("  ".join(cells).rstrip())
