"""Takes what may be secret out of a command line before it is recorded; pure."""

import re
from collections.abc import Sequence
from typing import Final

_HIDDEN: Final = "***"
_MAX_BYTES: Final = 8192
"""Of all arguments together: a body has 64 KiB, and a command can get thousands of paths."""

# Up to the last @, because a password may hold one that is not encoded.
_PASSWORD: Final = re.compile(r"(://[^:@/]*:).*@")
# All of a URL's options: which of them hold a password is up to the server's client library.
_OPTIONS: Final = re.compile(r"(postgres(?:ql)?://[^?]*\?).*", re.DOTALL)
_KEY: Final = re.compile(r"(atk_[0-9A-Za-z]+_)[0-9A-Za-z_-]+")
_ASSIGNED: Final = re.compile(r"((?:password|passwd|secret|token|passphrase)\s*=).*", re.IGNORECASE | re.DOTALL)


def without_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    r"""Return the arguments with `***` for passwords and options of database URLs, and for secrets of API keys.

    What is not text is shown as `\xff`. Arguments beyond 8 KiB in all are left out, with `…` for them.

    Example:
        >>> without_secrets(["copy", "--to=postgresql://ann:s3cret@db/audit?sslpassword=x"])
        ('copy', '--to=postgresql://ann:***@db/audit?***')
    """
    kept: list[str] = []
    left = _MAX_BYTES
    for argument in arguments:
        text = _masked(argument.encode(errors="surrogateescape").decode(errors="backslashreplace"))
        left -= len(text.encode())
        if left < 0:
            return (*kept, "…")
        kept.append(text)
    return tuple(kept)


def _masked(text: str) -> str:
    text = _OPTIONS.sub(rf"\1{_HIDDEN}", text)
    text = _PASSWORD.sub(rf"\1{_HIDDEN}@", text)
    text = _ASSIGNED.sub(rf"\1{_HIDDEN}", text)
    return _KEY.sub(rf"\1{_HIDDEN}", text)
