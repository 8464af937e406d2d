"""The end of a failed command's standard error, as a text that may be shown with its run."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from service.jobs.parameters import MAX_LENGTH
from service.jobs.texts import is_unprintable

EXCERPT_BYTES: Final = 4096
WINDOW_BYTES: Final = EXCERPT_BYTES + 4 * MAX_LENGTH
"""How many bytes of the end are needed to find a sensitive value that begins before the excerpt."""
MASK: Final = b"***"

_CUT_CHARACTER: Final = re.compile(rb"\A[\x80-\xbf]{1,3}")
# A shorter prefix of a value reveals little and also occurs in ordinary texts.
_LEAST_BEGINNING: Final = 4


def excerpt(end: bytes, sensitive: Iterable[str]) -> str:
    """Return at most the last 4 KiB of standard error as text.

    Each sensitive value is replaced by `***`, also a value that is cut off at the end. Not promised: a value that the
    command wrote in another form (Base64, for example) is not recognised. Bytes that are not UTF-8, and characters that
    control a terminal or the direction of text, become U+FFFD. Line breaks and tabs stay.

    Args:
        end: the last `WINDOW_BYTES` of standard error, or all of it if it is shorter.
        sensitive: the real values of the job's sensitive parameters.

    Example:
        >>> excerpt(b"login as hunter2 failed", ["hunter2"])
        'login as *** failed'
    """
    start = max(0, len(end) - EXCERPT_BYTES)
    parts: list[bytes] = []
    at = start
    for first, after in _covered(end, [value.encode() for value in sensitive if value]):
        if after > start:
            parts += [end[at:first], MASK]
            at = after
    text = b"".join([*parts, end[at:]])
    shown = (_CUT_CHARACTER.sub(b"", text) if start else text).decode("utf-8", "replace").replace("\r\n", "\n")
    return "".join("\ufffd" if is_unprintable(each) and each not in "\n\t" else each for each in shown)


def _covered(text: bytes, values: Iterable[bytes]) -> list[tuple[int, int]]:
    """Return the ranges of `text` that values cover, in order. Ranges that overlap or touch are joined."""
    places: list[tuple[int, int]] = []
    for first, after in sorted(place for value in values for place in _places(text, value)):
        if places and first <= places[-1][1]:
            places[-1] = (places[-1][0], max(places[-1][1], after))
        else:
            places.append((first, after))
    return places


def _places(text: bytes, value: bytes) -> Iterator[tuple[int, int]]:
    at = text.find(value)
    while at >= 0:
        yield at, at + len(value)
        at = text.find(value, at + 1)
    for first in range(max(0, len(text) - len(value) + 1), len(text) - _LEAST_BEGINNING + 1):
        if value.startswith(text[first:]):
            yield first, len(text)
            return
