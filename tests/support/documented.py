"""Takes queries out of a document, so that tests run what readers copy."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_HEADING = re.compile(r"^## (.+)$")
_FENCE = re.compile(r"^```(\w*)$")
_VARIABLE = re.compile(r"\$([A-Z][A-Z_]*)")


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


def blocks_of(document: Path) -> Sequence[Block]:
    """Return the fenced blocks of a Markdown document, in its order.

    Raises:
        ValueError: the last fence is not closed.
    """
    found: list[Block] = []
    section = lead = ""
    language: str | None = None
    text: list[str] = []
    for line in document.read_text(encoding="utf-8").splitlines():
        heading, fence = _HEADING.match(line), _FENCE.match(line)
        if language is not None and line == "```":
            found.append(Block(section, lead, language, "\n".join(text)))
            language, text = None, []
        elif language is not None:
            text.append(line)
        elif fence is not None:
            language = fence[1]
        elif heading is not None:
            section, lead = heading[1], ""
        elif line:
            lead = line
    if language is not None:
        raise ValueError(f"{document}: a fence is not closed")
    return found


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its `$VARIABLES` replaced.

    Raises:
        KeyError: there is no value for one of them.
    """
    return _VARIABLE.sub(lambda found: values[found[1]], text)
