"""Shows values from a copy to a reader: as JSON, cut to a length that can be read."""

import json
from typing import Final

_MOST: Final = 100
_BEFORE: Final = 20
_CUT: Final = "…"


def shown(value: object) -> str:
    """Return a value as JSON, cut behind 100 characters.

    Example:
        >>> shown({"status": "done"}), shown(None)
        ('{"status": "done"}', 'no value of the format')
    """
    return _cut(_text(value), 0)


def differing(one: object, other: object) -> tuple[str, str]:
    """Return two values as JSON; where they are long, what is around the first character that differs.

    Example:
        >>> differing("eve", "alice")
        ('"eve"', '"alice"')
    """
    texts = _text(one), _text(other)
    if max(map(len, texts)) <= _MOST:
        return texts
    pairs = zip(*texts, strict=False)
    differs_at = next((at for at, (a, b) in enumerate(pairs) if a != b), min(map(len, texts)))
    start = max(0, differs_at - _BEFORE)
    return _cut(texts[0], start), _cut(texts[1], start)


def _cut(text: str, start: int) -> str:
    before, behind = _CUT if start else "", _CUT if len(text) > start + _MOST else ""
    return f"{before}{text[start : start + _MOST]}{behind}"


def _text(value: object) -> str:
    if value is None:
        return "no value of the format"
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
