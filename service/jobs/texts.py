r"""Finds the characters by which a text looks like another one, so that an approver sees exactly what would run.

A text that enters a plan must not hold them (`unfit_character`). Where a text is shown, they are escaped (`visible`).
Letters of two scripts that look alike are not told apart.

Sources: Default_Ignorable_Code_Point in https://www.unicode.org/Public/17.0.0/ucd/DerivedCoreProperties.txt, and the
ranges of characters that are written from right to left in https://www.unicode.org/reports/tr9/#Bidirectional_Character_Types.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Final

_CONTROLS: Final = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\ud800-\udfff"
_REORDERING: Final = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
# Invisible: the default ignorable code points without the two joiners, and annotations and joiners of hieroglyphs.
_INVISIBLE: Final = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
) + "".join(
    f"{chr(first)}-{chr(last)}"
    for first, last in ((0x13430, 0x1343F), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF))
)
_JOINERS: Final = r"\u200c\u200d"
# The scripts that are written with joiners: Arabic and its neighbours, the Indic scripts, Tibetan to Myanmar, Khmer and
# Mongolian, and further blocks of these.
_JOINED: Final = r"\u0600-\u109f\u1700-\u18af\ua800-\uabff"
_BLANK: Final = r"\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000"
_PRIVATE: Final = r"\ue000-\uf8ff" + f"{chr(0xF0000)}-{chr(0x10FFFF)}"
_RIGHT_TO_LEFT: Final = r"\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe" + "".join(
    f"{chr(first)}-{chr(last)}" for first, last in ((0x10800, 0x10FFF), (0x1E800, 0x1EFFF))
)

UNFIT: Final = rf"[{_CONTROLS}{_INVISIBLE}]|(?<![{_JOINED}])[{_JOINERS}]"
"""The pattern of what no text of a plan may hold; it means the same in Python and, with the flag `u`, in ECMA-262."""

_UNFIT: Final = re.compile(UNFIT)
_UNFIT_IN_LINES: Final = re.compile(rf"(?![\n\t])(?:{UNFIT})")
_UNPRINTABLE: Final = re.compile(f"[{_CONTROLS}{_REORDERING}]")
# The escape itself is escaped too, so that two texts never look alike.
_HIDDEN: Final = re.compile(rf"[{_CONTROLS}{_INVISIBLE}{_JOINERS}{_BLANK}{_PRIVATE}]|\\(?=u\{{)")
_BACKWARD: Final = re.compile(f"[{_RIGHT_TO_LEFT}]")
_FORWARD: Final = re.compile(rf"(?![_{_RIGHT_TO_LEFT}])\w")
_SEEN: Final = re.compile(rf"[^\s{_CONTROLS}{_INVISIBLE}{_JOINERS}{_BLANK}]")


def unfit_character(text: str, *, line_breaks: bool = False) -> str | None:
    r"""Return the first character, as `U+XXXX`, that a text of a plan must not hold; None if there is none.

    Those are controls, separators of lines, lone surrogates, and characters that nobody can see: of zero width, tags,
    marks of the direction of text, variation selectors. A joiner (U+200C, U+200D) is allowed directly behind a
    character of a script that is written with joiners. Texts in any direction are allowed.

    Args:
        text: any text.
        line_breaks: whether line feeds and tabs are allowed, as in a script.

    Example:
        >>> unfit_character("a\u202eb"), unfit_character("שלום"), unfit_character("می\u200cخواهم")
        ('U+202E', None, None)
    """
    found = (_UNFIT_IN_LINES if line_breaks else _UNFIT).search(text)
    return f"U+{ord(found[0]):04X}" if found else None


def is_unprintable(character: str) -> bool:
    """True for controls, surrogates, line separators and marks of text direction."""
    return _UNPRINTABLE.match(character) is not None


def is_blank(text: str) -> bool:
    """True when nothing of the text can be seen."""
    return _SEEN.search(text) is None


def visible(text: str) -> str:
    r"""Return the text with each character as `\u{…}` that cannot be seen, or that changes the order of what is seen.

    Escaped are also blanks other than the space, characters for private use, and in a text of both directions the
    characters that are written from right to left. Two different texts have different results.

    Example:
        >>> visible("rm\u200b -rf /א/ב"), visible("שלום")
        ('rm\\u{200b} -rf /\\u{5d0}/\\u{5d1}', 'שלום')
    """
    shown = _HIDDEN.sub(_escape, text)
    # An escape is read from left to right itself.
    return _BACKWARD.sub(_escape, shown) if _FORWARD.search(shown) else shown


def visible_command(argv: Sequence[str]) -> str:
    r"""Return an argument list as one line, quoted as in a shell, with the escapes of `visible`.

    Example:
        >>> visible_command(["rm", "--", "a b", "c\u00a0d"])
        "rm -- 'a b' 'c\\u{a0}d'"
    """
    return visible(shlex.join(argv))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{{{ord(found[0]):x}}}"
