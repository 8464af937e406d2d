"""The identifiers of actors, people, tenants and issuers: which texts are refused, and which two look the same.

What grants something (whose records, whose idempotency key, whose tenant) compares identifiers exactly. What refuses
something (four eyes, the names of new keys) compares them as people see them.

Source: UAX #15 (NFKC), UAX #44 (`Default_Ignorable_Code_Point`), Unicode 3.13 (D146, compatibility caseless match).
"""

import re
import unicodedata
from typing import Final

MAX_CHARACTERS: Final = 256

# Controls, format characters, surrogates, private use, unassigned, and the separators of lines and paragraphs.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# The characters that are shown as nothing although their category is that of a letter, a mark or a symbol.
_SHOWN_AS_NOTHING: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# The scripts that share the shapes of many letters.
_SCRIPTS: Final = ("LATIN", "GREEK", "CYRILLIC")


def check_identifier(text: str) -> str:
    """Return `text`, if everybody who sees it can tell which text it is.

    Letters of another script that look like Latin ones are refused beside Latin ones only: a text that is Cyrillic
    throughout is an identifier.

    Raises:
        ValueError: it is empty, longer than 256 characters, not in the form NFKC, or has a character that nobody sees,
            a blank at an edge, two blanks in a row, or letters of scripts that look alike; the text says which. It
            repeats nothing of `text`, because refusals are counted by their reason.
    """
    if not 0 < len(text) <= MAX_CHARACTERS:
        raise ValueError(f"it does not have 1 to {MAX_CHARACTERS} characters")
    if any(map(_is_hidden, text)):
        raise ValueError("it has a character that nobody sees")
    if not unicodedata.is_normalized("NFKC", text):
        raise ValueError("it is not in the Unicode form NFKC")
    if " ".join(text.split()) != text:
        raise ValueError("it has a blank at an edge, or two in a row")
    scripts = [script for script in _SCRIPTS if any(unicodedata.name(one, "").startswith(script) for one in text)]
    if len(scripts) > 1:
        raise ValueError(f"it mixes letters that look alike ({' and '.join(map(str.capitalize, scripts))})")
    return text


def as_seen(text: str) -> str:
    """Return the form that two texts share if people see the same name, in whatever case.

    Example:
        >>> as_seen("Alice"), as_seen(" ali\u200bce "), as_seen("STRASSE") == as_seen("straße")
        ('alice', 'alice', True)
    """
    seen = "".join(one for one in text if not _is_hidden(one))
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", seen).casefold())
    return " ".join(unicodedata.normalize("NFKC", once.casefold()).split())


def _is_hidden(one: str) -> bool:
    return unicodedata.category(one) in _HIDDEN or _SHOWN_AS_NOTHING.match(one) is not None
