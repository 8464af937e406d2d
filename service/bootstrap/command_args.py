"""Takes what may be secret out of a command line before it is recorded; pure."""

import re
from collections.abc import Sequence
from typing import Final

from telemetry.urls import HIDDEN, hidden

_MAX_BYTES: Final = 8192
"""Of all arguments together: a body has 64 KiB, and a command can get thousands of paths."""

# An argument is one text, so a password with blanks ends at its last @, and options at its end.
_USER: Final = re.compile(r"((?<!sqlite:)(?<!/)//).*@", re.DOTALL)
_OPTIONS: Final = re.compile(r"(//[^?]*\?).*", re.DOTALL)
_ASSIGNED: Final = re.compile(r"((?:password|passwd|secret|token|passphrase)\s*=).*", re.IGNORECASE | re.DOTALL)


def without_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    r"""Return the arguments with `***` for users, passwords and options of URLs, and for secrets of API keys.

    What is not text is shown as `\xff`. Arguments beyond 8 KiB in all are left out, with `…` for them.

    Example:
        >>> without_secrets(["copy", "--to=postgresql://ann:s3cret@db/audit?sslpassword=x"])
        ('copy', '--to=postgresql://***@db/audit?***')
    """
    kept: list[str] = []
    left = _MAX_BYTES
    for argument in arguments:
        text = masked(argument.encode(errors="surrogateescape").decode(errors="backslashreplace"))
        left -= len(text.encode())
        if left < 0:
            return (*kept, "…")
        kept.append(text)
    return tuple(kept)


def masked(text: str) -> str:
    """Return one argument with `***` for what may be secret in it."""
    # The user first: a password may hold a `?`.
    for form, instead in ((_USER, rf"\1{HIDDEN}@"), (_OPTIONS, rf"\1{HIDDEN}"), (_ASSIGNED, rf"\1{HIDDEN}")):
        text = form.sub(instead, text)
    return hidden(text)
