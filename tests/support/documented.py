"""Takes queries and commands out of a document, so that tests run what readers copy."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROSE = "prose"
"""The language of a line that is in no block."""

_HEADING = re.compile(r"^## (.+)$")
_FENCE = re.compile(r"^( *)```(\w*)$")
_VARIABLE = re.compile(r"\$([A-Z][A-Z_]*)")
_INLINE = re.compile(
    r"`((?:(?:\.venv/bin/)?auditrace|sqlite3|find|docker|kubectl|pip) [^`…]+)`(?P<mark> \((?:by hand|not tried)\))?"
)


class Block(NamedTuple):
    """A fenced block: the heading above it, what is said right before it, its language and its text."""

    section: str
    lead: str
    language: str
    text: str

    @property
    def is_tried(self) -> bool:
        """True unless the document says of it that it was not tried, or only by hand."""
        return "(not tried)" not in self.lead and "(by hand)" not in self.lead


class Typed(NamedTuple):
    """A command as a document shows it, and what it shows of the answer, empty where it shows nothing."""

    command: str
    shown: str = ""
    section: str = ""


def blocks_of(document: Path) -> Sequence[Block]:
    """Return the fenced blocks of a Markdown document, in its order.

    Raises:
        ValueError: the last fence is not closed.
    """
    return [block for block in _parts_of(document) if block.language != PROSE]


def commands_of(document: Path) -> Sequence[Typed]:
    """Return what a document tells to type, in its order: its console blocks, and the commands within its sentences.

    What it says of that it was not tried, or only by hand, is left out.
    """
    found: list[Typed] = []
    for part in _parts_of(document):
        if part.language == PROSE:
            marked = _INLINE.finditer(part.text)
            found += [Typed(one[1], section=part.section) for one in marked if one["mark"] is None]
        elif part.language == "console" and part.is_tried:
            found += typed_in(part)
    return found


def typed_in(block: Block) -> list[Typed]:
    """Return the commands of a console block: lines that begin with `$ `, with the lines that each goes on in."""
    found: list[list[str]] = []
    lines = iter(block.text.split("\n"))
    for line in lines:
        if line.startswith("$ "):
            command = line.removeprefix("$ ")
            while command.endswith("\\"):
                command = command.removesuffix("\\") + next(lines).strip()
            found.append([command])
        elif found:
            found[-1].append(line)
    return [Typed(command, "\n".join(shown).strip(), block.section) for command, *shown in found]


def _parts_of(document: Path) -> Iterator[Block]:
    """Yield blocks, and each line between them as a block of prose."""
    section = lead = ""
    opened: tuple[str, str] | None = None
    text: list[str] = []
    for line in document.read_text(encoding="utf-8").splitlines():
        heading, fence = _HEADING.match(line), _FENCE.match(line)
        if opened is not None and line == f"{opened[0]}```":
            yield Block(section, lead, opened[1], "\n".join(text))
            opened, text = None, []
        elif opened is not None:
            text.append(line.removeprefix(opened[0]))
        elif fence is not None:
            opened = (fence[1], fence[2])
        elif heading is not None:
            section, lead = heading[1], ""
        elif line:
            lead = line
            yield Block(section, line, PROSE, line)
    if opened is not None:
        raise ValueError(f"{document}: a fence is not closed")


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its `$VARIABLES` replaced.

    Raises:
        KeyError: there is no value for one of them.
    """
    return _VARIABLE.sub(lambda found: values[found[1]], text)
