"""Changes JSON texts at random: what a forger, a careless tool or a broken disk can make of one.

Each change takes the source of chance and a text, and returns another text, which need not be JSON any more.
"""

import json
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

TextChange = Callable[[Random, str], str]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[][{},:]')
_NUMBER: Final = re.compile(r'(?<=[:,\[])-?[0-9]+(?=[,}\]])|(?<=")-?[0-9]+(?=")')
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PLAIN: Final = re.compile(r'(?<!\\)[^"\\\x00-\x1f{}\[\]:, ]')
_ESCAPE: Final = re.compile(r'(?:\\["\\/bfnrt]|\\u[0-9a-f]{4})+')
_ESCAPED: Final = re.compile(r'"[^"\\]*\\.(?:[^"\\]|\\.)*"')
_MEMBER: Final = re.compile(r'"(?:[^"\\]|\\.)*":')
_BLANKS: Final = (" ", "\n", "\t", "\r", "  ", "\u00a0", "\ufeff", "\u2028", "\x0b", "/**/")
_SNIPPETS: Final = (
    *('"', "\\", "\\\\", '\\"', "\\u0000", "\x00", "\x01", "\t", "\x7f", "\u2028", "é", "e\u0301", "😀", "\uffff"),
    *("\\ud800", "\\udc00", "\\ud83d\\ude00", "\ud800", ",", ",,", ":"),
    *("{}", "[]", "null", "true", "0", "-", ".", "e1"),
    *('"x":1,', '"audit.actor.id":"eve",', "'", "%s", "%", '"}},{"key":"error.type","value":{"stringValue":"y', "}"),
)
_NUMBERS: Final = (
    *("0", "-0", "-1", "1.5", "1e400", "NaN", "Infinity", "0x1", str(2**53), str(2**63), str(2**64), "9" * 400),
)
_SPELLINGS: Final = (
    *("{0}.0", "{0}e0", "{0}E+0", "{0}0e-1", "0{0}", "+{0}", "-{0}", " {0}", "{0} ", "{0}.", '"{0}"', "[{0}]", "{0}_0"),
    *("true", "null", "{0}0", "00{0}", "{0},{0}"),
)
_MOST_DEPTH: Final = 1_500


def _at(draw: Random, text: str) -> int:
    return draw.randint(0, len(text))


def _place_of(draw: Random, pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Return a match at or behind a random place, or else the first one."""
    return pattern.search(text, _at(draw, text)) or pattern.search(text)


def _replaced(text: str, match: re.Match[str] | None, other: str) -> str:
    return text if match is None else text[: match.start()] + other + text[match.end() :]


def character_changed(draw: Random, text: str) -> str:
    """One bit of one character is another."""
    at = draw.randrange(len(text)) if text else 0
    return text[:at] + chr(ord(text[at]) ^ 1 << draw.randrange(7)) + text[at + 1 :] if text else text


def put_in(draw: Random, text: str) -> str:
    """Something stands somewhere that was not there."""
    at = _at(draw, text)
    return text[:at] + draw.choice(_SNIPPETS) + text[at:]


def taken_out(draw: Random, text: str) -> str:
    """A few characters are missing."""
    at = _at(draw, text)
    return text[:at] + text[at + draw.randint(1, 40) :]


def doubled(draw: Random, text: str) -> str:
    """A few characters stand twice."""
    at = _at(draw, text)
    end = at + draw.randint(1, 80)
    return text[:end] + text[at:end] + text[end:]


def cut_short(draw: Random, text: str) -> str:
    """The end is missing."""
    return text[: _at(draw, text)]


def tokens_swapped(draw: Random, text: str) -> str:
    """Two tokens stand in each other's place: neighbours, or any two."""
    tokens = list(_TOKEN.finditer(text))
    if len(tokens) < 3:
        return text
    first = draw.randrange(len(tokens) - 2)
    second = first + draw.choice((1, 2)) if draw.random() < 0.5 else draw.randrange(first + 1, len(tokens))
    one, other = tokens[first], tokens[min(second, len(tokens) - 1)]
    between = text[one.end() : other.start()]
    return text[: one.start()] + other.group() + between + one.group() + text[other.end() :]


def token_copied(draw: Random, text: str) -> str:
    """A token stands in the place of another one, of the same length if there is any."""
    one = _place_of(draw, _TOKEN, text)
    tokens = [] if one is None else [token.group() for token in _TOKEN.finditer(text) if token.group() != one.group()]
    alike = [token for token in tokens if one is not None and len(token) == len(one.group())]
    return _replaced(text, one, draw.choice(alike or tokens)) if tokens else text


def number_respelled(draw: Random, text: str) -> str:
    """A number is written in another way, or is another one."""
    match = _place_of(draw, _NUMBER, text)
    spelling = draw.choice(_SPELLINGS if draw.random() < 0.7 else _NUMBERS)
    return _replaced(text, match, spelling.format(match.group() if match else ""))


def escape_respelled(draw: Random, text: str) -> str:
    """A character of a string is written as an escape, in one of its ways, or as one half of a pair."""
    match = _place_of(draw, _PLAIN, text)
    if match is None:
        return text
    units = match.group().encode("utf-16-be", "surrogatepass")
    escapes = [f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in range(0, len(units), 2)]
    ways = ["".join(escapes), "".join(escapes).upper().replace("U", "u"), escapes[0], escapes[-1], f"\\{match.group()}"]
    return _replaced(text, match, draw.choice(ways))


def escape_undone(draw: Random, text: str) -> str:
    """Escaped characters stand as they are, one or all of a string: what ends a string, or may not stand in one."""
    match = _place_of(draw, draw.choice((_ESCAPE, _ESCAPED)), text)
    return text if match is None else _replaced(text, match, _ESCAPE.sub(_unescaped, match.group()))


def _unescaped(match: re.Match[str]) -> str:
    return str(json.loads(f'"{match.group()}"'))


def blank_put_in(draw: Random, text: str) -> str:
    """White space stands between two tokens, or in one."""
    match = _place_of(draw, _TOKEN, text)
    at = _at(draw, text) if match is None or draw.random() < 0.2 else draw.choice((match.start(), match.end()))
    return text[:at] + draw.choice(_BLANKS) + text[at:]


def member_doubled(draw: Random, text: str) -> str:
    """A member occurs twice in an object, with the same value or with another one, before or behind."""
    match = _place_of(draw, _MEMBER, text)
    if match is None:
        return text
    try:
        _, end = json.JSONDecoder().raw_decode(text, match.end())
    except (ValueError, RecursionError):
        return text
    value = text[match.end() : end]
    other = draw.choice((value, value, '"eve"', "0", "null", "{}", "[]", value[:-1] + "x" + value[-1:]))
    one, second = draw.choice(((value, other), (other, value)))
    return f"{text[: match.start()]}{match.group()}{one},{match.group()}{second}{text[end:]}"


def made_long(draw: Random, text: str) -> str:
    """A string is very long."""
    match = _place_of(draw, _STRING, text)
    more = draw.choice(("x", "é")) * draw.choice((300, 2_000, 70_000))
    return text + more if match is None else _replaced(text, match, f'{match.group()[:-1]}{more}"')


def nested(draw: Random, text: str) -> str:
    """A value is within arrays or objects, a few or many."""
    match = _place_of(draw, _TOKEN, text)
    depth = draw.choice((1, 2, 5, 100, _MOST_DEPTH))
    before, behind = draw.choice((("[", "]"), ('{"a":', "}"), ('{"kvlistValue":{"values":[', "]}}")))
    return text if match is None else _replaced(text, match, before * depth + match.group() + behind * depth)


TEXT_CHANGES: Final[Mapping[str, TextChange]] = {
    "a character changed": character_changed,
    "something put in": put_in,
    "something taken out": taken_out,
    "a part doubled": doubled,
    "cut short": cut_short,
    "two tokens swapped": tokens_swapped,
    "a token copied over another": token_copied,
    "a number respelled": number_respelled,
    "a character escaped": escape_respelled,
    "an escape undone": escape_undone,
    "white space put in": blank_put_in,
    "a member doubled": member_doubled,
    "a text made very long": made_long,
    "a value nested": nested,
}
