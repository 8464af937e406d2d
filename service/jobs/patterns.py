"""Translates patterns of parameters for JSON Schema: either the same texts match, or there is no translation.

A pattern of a parameter is a Python pattern with the flag ASCII that must match the whole text. A pattern of a schema
is an ECMA-262 pattern with the flag `u` that may match anywhere. A translation has the same meaning in both languages,
so that validators in Python give the same result.
Source: https://docs.python.org/3/library/re.html, ECMA-262 section 22.2.1.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
    (?P<group>\((?:\?(?:P<\w+>|[:=!]|<[=!])|(?!\?)))  # groups of both languages, and names, which only references use
    | (?P<foreign>\(\?)                               # flags, comments, atomic groups, conditions, references
    | (?P<close>\))
    | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])
    | (?P<times>(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d*)\})\??)
    | (?P<escape>\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.))
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_SET: Final = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|.", re.DOTALL)
_SYNTAX: Final = frozenset("^$\\.*+?()[]{}|/")
_SYNTAX_IN_SET: Final = frozenset("^\\[]-")
_LETTERS: Final = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": "[A-Za-z0-9_]",
    "W": "[^A-Za-z0-9_]",
    # A value may hold no other white space of ASCII.
    "s": "[ ]",
    "S": "[^ ]",
    "A": "^",
    "Z": "$",
    "b": r"\b",
    "B": r"\B",
}
_LETTERS_IN_SET: Final = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
_CONTROLS: Final = frozenset("tnrfv")


def ecma_pattern(pattern: str) -> str | None:
    r"""Return a pattern that is found in exactly those printable texts that `pattern` matches as a whole.

    Return None when ECMA-262 does not have a part of the pattern, or reads it differently: flags within the pattern,
    references to groups, atomic groups, possessive quantifiers, conditions, octal and named characters, negated classes
    in sets.

    Example:
        >>> ecma_pattern(r"(?P<year>\d{4})-[\w-]+")
        '^(?:([0-9]{4})-[A-Za-z0-9_\\-]+)$'
    """
    written: list[str] = []
    groups: list[str] = []
    is_repeatable = True
    for token in _TOKEN.finditer(pattern):
        text = _written(token)
        if text is None or (token.lastgroup == "times" and not is_repeatable):
            return None
        if token.lastgroup == "group":
            groups.append(text)
        # Lookarounds cannot be repeated. A second quantifier would be possessive.
        is_repeatable = token.lastgroup != "times"
        if token.lastgroup == "close":
            is_repeatable = groups.pop() in {"(", "(?:"}
        written.append(text)
    return f"^(?:{''.join(written)})$"


def _written(token: re.Match[str]) -> str | None:
    text = token[0]
    match token.lastgroup:
        case "foreign":
            return None
        case "group":
            return "(" if text.startswith("(?P") else text
        case "set":
            return _set(text)
        case "escape":
            return _escape(text)
        case "times":
            return text.replace("{,", "{0,")
        case "other":
            return f"\\{text}" if text in "{}]" else text
        case _:
            return text


def _escape(text: str) -> str | None:
    character = text[1]
    if len(text) > 2 or character in _CONTROLS:
        return text
    if character in _LETTERS:
        return _LETTERS[character]
    if character.isascii() and character.isalnum():
        return None
    return text if character in _SYNTAX else character


def _set(text: str) -> str | None:
    opening = "[^" if text.startswith("[^") else "["
    items = _IN_SET.findall(text[len(opening) : -1])
    written = [opening]
    while items:
        # As in Python: a hyphen between two items makes a range; anywhere else it is a literal hyphen.
        count = 3 if len(items) > 2 and items[1] == "-" else 1
        atoms = [_atom(item) for item in items[:count:2]]
        if None in atoms:
            return None
        written.append("-".join(atom for atom in atoms if atom is not None))
        items = items[count:]
    return "".join([*written, "]"])


def _atom(item: str) -> str | None:
    character = item[1:2] or item
    if len(item) > 2 or (len(item) == 2 and character in _CONTROLS):
        return item
    if len(item) == 2 and character.isascii() and character.isalnum():
        return _LETTERS_IN_SET.get(character)
    return f"\\{character}" if character in _SYNTAX_IN_SET else character
