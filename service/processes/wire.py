"""Checks an HTTP message before the application gets it: bytes that can be read in two ways are refused.

The parser (llhttp, by httptools) is strict about bytes. What it leaves to servers is decided here: versions, `Host`,
targets, codings, sizes, and what happens to answers that are not sent yet. Source: RFC 9112. The decision, and how
other servers read the same bytes: docs/adr/0022-a-strict-parser.md.
"""

import re
from collections.abc import Sequence
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES: Final = 64 * 1024
"""The limit for a head, and for other bytes between two pieces of a body, such as the lines of chunks."""
TARGET_BYTES: Final = 16 * 1024
"""The limit for a target (path and query): a listing with fifty values for each of five filters has room."""
FIELDS: Final = 100
"""How many fields a head may have, and as many again behind a chunked body. Browsers send about 20, proxies add 10."""
PIPELINED: Final = 32
"""How many requests of a connection may wait for the answer to an earlier one."""

_VERSIONS: Final = frozenset({"1.0", "1.1"})
# Origin form, absolute form, asterisk form (RFC 9112, 3.2); no userinfo, no fragment, no tunnel.
_TARGET: Final = re.compile(rb"/[^#]*|https?://[^/?#@]+/[^#]*|\*", re.IGNORECASE)

_AMBIGUOUS: Final = b"This is not a request that every reader of HTTP/1.1 takes for the same.\n"
# Of each status of a limit: the name of the limit, and what the client gets.
_LIMITS: Final = {
    408: ("slow_request", b"The request comes too slowly.\n"),
    414: ("long_target", b"The target of the request is too long.\n"),
    429: ("pipelined", b"Too many requests wait on this connection.\n"),
    431: ("long_head", b"The head of the request is too long.\n"),
}

Headers = Sequence[tuple[bytes, bytes]]


class _AmbiguousError(Exception):
    """Ends the parsing of a connection; never leaves this file, because the parser turns it into its own error."""


class StrictProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, for messages with one meaning; others end the connection.

    A refusal never mixes with the answer to an earlier request: earlier answers are sent first.
    """

    _status = 400
    _is_over = False
    _since_body = 0
    _last: RequestResponseCycle | None = None
    """The cycle (request and answer) of the last request that was accepted."""
    _is_within = False
    """True from the end of a head to the end of its message."""

    def ended(self, reason: str) -> None:
        """Note that a limit is the reason why this connection is refused or ended; subclasses count it."""

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._is_over:
            return
        self._unset_keepalive_if_required()
        self._since_body += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._stop_reading()
        else:
            if self._since_body > HEAD_BYTES:
                self._status = 431
                self._stop_reading()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        super().on_url(url)
        if len(self.url) > TARGET_BYTES:
            self._status = 414
            raise _AmbiguousError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field."""
        if len(self.headers) >= FIELDS:
            self._status = 431
            raise _AmbiguousError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application when its complete head passes the checks."""
        self._require_one_meaning()
        if self.parser.should_upgrade():
            return
        super().on_headers_complete()
        self._last = self.cycle
        self._is_within = True
        # Fields after a chunked body are no headers: decisions by the headers were made before they came.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._since_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the message."""
        self._since_body = 0
        self._is_within = False
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offered:
                # The server accepts no other protocol (RFC 9110, 7.8), but the parser takes the body for one. So it
                # parses the message again without the offer. Java's client offers HTTP/2 with each first request.
                data = self._head_without_offer() + data[offered.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
            else:
                return

    def _head_without_offer(self) -> bytes:
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([line, *fields, b"", b""])

    def _stop_reading(self) -> None:
        """Refuse the last message; complete requests before it are answered first."""
        self._is_over = True
        if self._status in _LIMITS:
            self.ended(_LIMITS[self._status][0])
        last = self._last
        if last is None or (last.response_complete and not self._is_within):
            self._refuse()
        elif not self._is_within:
            last.keep_alive = False
        elif self.pipeline or last.response_started:
            self.transport.close()
        else:
            # The refusal is the answer; the application's own answer is dropped.
            last.disconnected = True
            self._refuse()

    def _refuse(self) -> None:
        _, reason = _LIMITS.get(self._status, ("", _AMBIGUOUS))
        head = f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(reason)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[self._status] + head.encode() + reason)
        self.transport.close()

    def _require_one_meaning(self) -> None:
        if len(self.pipeline) >= PIPELINED:
            self._status = 429
            raise _AmbiguousError
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > HEAD_BYTES:
            self._status = 431
            raise _AmbiguousError
        version = self.parser.get_http_version()
        hosts, codings = _values(self.headers, b"host"), _values(self.headers, b"transfer-encoding")
        has_one_meaning = (
            version in _VERSIONS
            and self.parser.get_method() != b"CONNECT"
            and _TARGET.fullmatch(self.url) is not None
            and (len(hosts) == 1 or (not hosts and version == "1.0"))
            and (not codings or (version == "1.1" and [coding.lower() for coding in codings] == [b"chunked"]))
        )
        if not has_one_meaning:
            raise _AmbiguousError


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]
