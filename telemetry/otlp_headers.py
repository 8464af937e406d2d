"""Reads and checks the headers of OTLP requests. A header that cannot be sent would make every request fail.

Source: OpenTelemetry Protocol Exporter, "Specifying headers via environment variables"; RFC 9110, 5.5 and 5.6.2;
RFC 9113, 8.2.2; gRPC over HTTP2, "Custom-Metadata", https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote

from telemetry.files import read_regular

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Headers as gRPC takes them: bytes where the name ends in `-bin`."""

_PAIRS: Final = "must be name=value pairs, URL-encoded, separated by commas"
_HTTP_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_HTTP_VALUE: Final = re.compile(r"[\t -~]*")
_GRPC_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_GRPC_VALUE: Final = re.compile(r"[ -~]*")
_RESERVED: Final = "grpc-"
_BINARY: Final = "-bin"
# Headers about the request or the connection. The exporter sets or drops them, or its requests break with them.
_OWN: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


def parse_headers(text: str, *, is_grpc: bool) -> Mapping[str, str]:
    """Return the headers of a variable, names in lower case.

    Every returned header can be sent. Over gRPC the value of a name that ends in `-bin` is base64, padded or not.

    Raises:
        ValueError: says what is wrong, without showing a value.
    """
    headers: dict[str, str] = {}
    for number, pair in enumerate(filter(str.strip, text.split(",")), start=1):
        name, separator, value = (unquote(part.strip()) for part in pair.partition("="))
        if not separator:
            raise ValueError(f"{_PAIRS}; pair {number} has no `=`")
        _check(number, name.lower(), value, is_grpc=is_grpc)
        headers[name.lower()] = value
    return headers


def metadata_of(headers: Mapping[str, str]) -> Metadata:
    """Return headers that were parsed for gRPC as gRPC metadata."""
    return tuple((name, _decoded(value) if name.endswith(_BINARY) else value) for name, value in headers.items())


def authorization(token_file: Path) -> str:
    """Return the value of the header `authorization` for the bearer token in a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file does not hold one token that can be sent.
    """
    token = read_regular(token_file).decode().strip()
    if not token or not _GRPC_VALUE.fullmatch(token):
        # The content is not shown, because it may be a secret.
        raise ValueError(f"{token_file} must hold one token, of printable ASCII characters")
    return f"Bearer {token}"


def _check(number: int, name: str, value: str, *, is_grpc: bool) -> None:
    names, values = (_GRPC_NAME, _GRPC_VALUE) if is_grpc else (_HTTP_NAME, _HTTP_VALUE)
    if not names.fullmatch(name):
        allowed = "letters, digits, `_`, `-` and `.`" if is_grpc else "letters, digits and !#$%&'*+-.^_`|~"
        raise ValueError(f"{_PAIRS}; pair {number} has a name that cannot be sent: it may have {allowed}")
    if name in _OWN:
        raise ValueError(f"{name} cannot be set: the exporter sets what describes the request or the connection")
    if is_grpc and name.startswith(_RESERVED):
        raise ValueError(f"pair {number} has a name that begins with {_RESERVED}, which is reserved for gRPC itself")
    if not values.fullmatch(value):
        allowed = "printable ASCII characters" if is_grpc else "printable ASCII characters and tabs"
        raise ValueError(f"{_PAIRS}; pair {number} has a value that cannot be sent: it may have {allowed}")
    if value != value.strip():
        raise ValueError(f"{_PAIRS}; pair {number} has a value that cannot be sent: it begins or ends with a blank")
    if is_grpc and name.endswith(_BINARY):
        try:
            _decoded(value)
        except binascii.Error:
            raise ValueError(
                f"pair {number} has a name that ends in {_BINARY}, so that over gRPC its value must be base64"
            ) from None


def _decoded(value: str) -> bytes:
    unpadded = value.rstrip("=")
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
