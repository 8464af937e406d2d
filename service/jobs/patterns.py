"""Translates the patterns of parameters, so that RE2, JSON Schema and Python match the same texts.

A pattern is written as a Python pattern with the flag ASCII that must match the whole text. RE2 matches it, in a time
that grows with the length of the text and no faster. A schema has an ECMA-262 pattern with the flag `u` that may match
anywhere. The translation has the same meaning in all three, for the texts that a value can be: they have no line
breaks, and no other white space of ASCII than blanks. A part that has another meaning in one of them is refused.

Source: https://docs.python.org/3/library/re.html, ECMA-262 section 22.2.1, https://github.com/google/re2/wiki/Syntax.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from string import ascii_letters
from typing import Final, Protocol

import re2

_TOKEN: Final = re.compile(
    r"""
    (?P<flags>\A\(\?[aims]+\))
    | (?P<look>\(\?<?[=!])
    | (?P<reference>\(\?P=|\\[0-9])
    | (?P<group>\((?:\?(?:P<\w+>|:)|(?!\?)))          # names are only for references
    | (?P<foreign>\(\?[^)]?)
    | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])
    | (?P<possessive>(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d*)\})\+)
    | (?P<times>(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d*)\})\??)
    | (?P<escape>\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.))
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_SET: Final = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|.", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_REFUSED: Final = {
    "look": "look-around",
    "reference": "a reference to a group, or an octal character",
    "foreign": "a group of this kind",
    "possessive": "a possessive quantifier",
}
_SYNTAX: Final = frozenset("^$\\.*+?()[]{}|/")
_SYNTAX_IN_SET: Final = frozenset("^\\[]-")
_LETTERS: Final = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": "[A-Za-z0-9_]",
    "W": "[^A-Za-z0-9_]",
    "s": "[ ]",
    "S": "[^ ]",
    "A": "^",
    "Z": "$",
    "b": r"\b",
}
_LETTERS_IN_SET: Final = {
    "d": "0-9",
    "D": " -/:-\U0010ffff",
    "w": "A-Za-z0-9_",
    "W": r" -/:-@\[-\^`{-" + "\U0010ffff",
    "s": " ",
    "S": "!-\U0010ffff",
}
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}


class _Matcher(Protocol):
    @property
    def programsize(self) -> int: ...
    def fullmatch(self, text: str) -> object | None: ...


MAX_STEPS: Final = 20_000_000
"""The most instructions times characters of one match. RE2 takes about 0.15 s for it at worst, most often far less."""
_MAX_MEMORY: Final = 1024 * 1024


def portable_pattern(pattern: str) -> str:
    r"""Return a pattern that is found in exactly those texts that `pattern` matches as a whole.

    Raises:
        ValueError: it is no Python pattern, or has a part that is not supported; the text says which.

    Example:
        >>> portable_pattern(r"(?P<year>\d{4})-[\w-]+")
        '^(?:([0-9]{4})-[A-Za-z0-9_\\-]+)$'
    """
    try:
        re.compile(pattern, re.ASCII)
    except (re.error, ValueError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    tokens = list(_TOKEN.finditer(pattern))
    folds = any(token.lastgroup == "flags" and "i" in token[0] for token in tokens)
    return f"^(?:{''.join(_written(token, folds=folds) for token in tokens)})$"


def require_matchable(pattern: str, max_length: int) -> None:
    """Check that texts of this length can be matched in bounded time.

    Raises:
        ValueError: the pattern is not supported, or too large; the text says why.
    """
    try:
        size = _matcher(pattern).programsize
    except re2.error as error:
        what = error.args[0] if error.args else ""
        reason = what.decode("utf-8", "replace") if isinstance(what, bytes) else what
        raise ValueError(f"is too large ({reason}): repeat at most 1000 times in all, and use max_length") from error
    if size * max_length > MAX_STEPS:
        raise ValueError(f"is too large for texts of {max_length} characters: repeat less, or lower max_length")


def is_match(pattern: str, text: str) -> bool:
    """Return whether `pattern` matches the whole text, which has no lone surrogate."""
    return _matcher(pattern).fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> _Matcher:
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    options.never_capture = True
    # RE2 writes \x{2014} where the others write \u2014.
    translated = _ESCAPE.sub(lambda found: f"\\x{{{found[1]}}}" if found[1] else found[0], portable_pattern(pattern))
    return re2.compile(translated, options)


def _written(token: re.Match[str], *, folds: bool) -> str:
    text = token[0]
    match token.lastgroup:
        case "flags":
            # ASCII is in force anyway. The others but `i` only say what happens at line breaks.
            return ""
        case "group":
            return "(" if text.startswith("(?P") else text
        case "set":
            return _set(text, folds=folds)
        case "escape":
            return _escape(text, folds=folds)
        case "times":
            return text.replace("{,", "{0,")
        case "other" if text in "{}]":
            return f"\\{text}"
        case "other":
            return _folded(text, text) if folds else text
        case kind:
            what = _REFUSED[kind or "foreign"]
            raise ValueError(f"has {what} ({text} …), which is not supported, because patterns run in linear time")


def _escape(text: str, *, folds: bool) -> str:
    character = text[1]
    if len(text) > 2:
        written = _coded(text)
        return _folded(_character(text), written) if folds else written
    if character in _CONTROLS:
        return text
    if character in _LETTERS:
        return _LETTERS[character]
    _refuse_letter(text)
    return text if character in _SYNTAX else character


def _set(text: str, *, folds: bool) -> str:
    opening = "[^" if text.startswith("[^") else "["
    items = _IN_SET.findall(text[len(opening) : -1])
    return "".join([opening, *_items(items, folds=folds), "]"])


def _items(items: Sequence[str], *, folds: bool) -> Iterator[str]:
    while items:
        # As in Python: a hyphen between two items makes a range; anywhere else it is a literal hyphen.
        count = 3 if len(items) > 2 and items[1] == "-" else 1
        ends = items[:count:2]
        yield "-".join(map(_atom, ends))
        if folds and ends[0][1:] not in _LETTERS_IN_SET:
            first, last = _character(ends[0]), _character(ends[-1])
            yield "".join(letter.swapcase() for letter in ascii_letters if first <= letter <= last)
        items = items[count:]


def _atom(item: str) -> str:
    character = item[1:2] or item
    if len(item) > 2:
        return _coded(item)
    if len(item) == 2 and character in _CONTROLS:
        return item
    if len(item) == 2 and character in _LETTERS_IN_SET:
        return _LETTERS_IN_SET[character]
    if len(item) == 2:
        _refuse_letter(item)
    return f"\\{character}" if character in _SYNTAX_IN_SET else character


def _coded(escape: str) -> str:
    character = _character(escape)
    if "\ud800" <= character <= "\udfff":
        raise ValueError(f"has half of a character ({escape}): write the character itself")
    return character if escape[1] == "U" else escape


def _character(item: str) -> str:
    """Return the character that an item of a set stands for, or an escape with a number."""
    code = item[2:]
    if code:
        return chr(int(code, 16))
    return _CONTROLS.get(item[1:], item[-1])


def _folded(character: str, written: str) -> str:
    # With the flag ASCII, Python ignores the case of these letters only.
    return f"[{character.lower()}{character.upper()}]" if character in ascii_letters else written


def _refuse_letter(escape: str) -> None:
    if escape[1].isascii() and escape[1].isalnum():
        raise ValueError(f"has the escape {escape}, which is not supported")
