r"""Takes out of texts what may be secret: user, password, query and fragment of URLs, and credentials; pure.

`shown` is for one URL, also a malformed one. `hidden` is for a text of any origin, such as the message of a library.
"""

import re
from typing import Final

HIDDEN: Final = "***"

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:?//+|//+)?(?P<rest>.*)", re.DOTALL)
_OPTIONS: Final = re.compile(r"[?#].*", re.DOTALL)
_ASSIGNED: Final = re.compile(
    r"((?:password|passwd|passphrase|secret|token|api[_-]?key|authorization)\s*=\s*)"
    r"(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s&,;)\]}'\"]+)",
    re.IGNORECASE | re.DOTALL,
)
_WORD: Final = re.compile(r"[^\s'\"<>]+")
_CREDENTIALS: Final = (
    (_ASSIGNED, rf"\1{HIDDEN}"),
    (re.compile(r"\b((?:Bearer|Basic|ApiKey|Token)\s+)[A-Za-z0-9._~+/=-]{16,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(atk_[0-9A-Za-z]+_)[0-9A-Za-z_-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    # PostgreSQL quotes stored values there.
    (re.compile(r"^(DETAIL|CONTEXT|QUERY):  .*$", re.MULTILINE), rf"\1:  {HIDDEN}"),
)


def shown(url: str) -> str:
    """Return a URL without user, password, query and fragment, also one that is malformed.

    Example:
        >>> shown("http://me:secret@proxy:3128"), shown("https://token@host/x?key=1")
        ('http://proxy:3128', 'https://host/x')
        >>> shown("postgresql://u:p@ss@db/audit"), shown("http//me:p w@host/x")
        ('postgresql://db/audit', 'http//host/x')
        >>> shown("host=db password='a b'")
        'host=db password=***'
    """
    parts = _URL.match(url)
    if parts is None:
        return HIDDEN
    # A password that is not encoded may hold `?` and `#`, so the user goes first.
    scheme, rest = parts["scheme"] or "", parts["rest"]
    if not scheme.startswith("sqlite:"):
        rest = rest.rpartition("@")[2]
    return hidden(f"{scheme}{_OPTIONS.sub('', rest)}")


def hidden(text: str) -> str:
    """Return a text with `***` for what may be secret in it: in URLs, assignments, credentials, details of databases.

    Example:
        >>> hidden("cannot reach https://me:s3cret@host/x?key=1: refused")
        'cannot reach https://***@host/x?*** refused'
    """
    text = _WORD.sub(lambda word: _without_user_and_query(word[0]), text)
    for form, instead in _CREDENTIALS:
        text = form.sub(instead, text)
    return text


def _without_user_and_query(word: str) -> str:
    scheme, slashes, rest = word.partition("//")
    # Up to the last @, because a password may hold one that is not encoded. The path of a file names no user.
    if "@" in rest and not scheme.endswith("sqlite:"):
        word = f"{scheme}{slashes}{HIDDEN}@{rest.rpartition('@')[2]}"
    # Libraries name the path of a URL alone too: "Max retries exceeded with url: /v1/traces?key=…".
    path, _, query = word.partition("?")
    return f"{path}?{HIDDEN}" if query and "/" in path else word
