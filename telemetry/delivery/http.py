"""OTLP over HTTP: one request and one answer at a time, on a connection that is kept.

Source: OTLP specification, "OTLP/HTTP Response".
"""

import gzip
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx
import zstandard

from telemetry.delivery.answers import Answer, Refused, Unreachable
from telemetry.delivery.limited import Limited
from telemetry.delivery.responses import PROTOBUF, answer_of_body, retry_after_s, shown
from telemetry.delivery.settings import SinkSettings
from telemetry.delivery.watched import Renewed
from telemetry.urls import hidden
from telemetry.urls import shown as shown_url

USER_AGENT: Final = "auditrace"
_MAX_ANSWER_BYTES: Final = 1 << 20
_STEPS: Final = 3
"""Connecting, sending and waiting may each take one timeout; a whole request may take three."""
# The lowest levels: records are alike, so higher levels take much longer and save little.
_COMPRESSORS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda request: gzip.compress(request, compresslevel=1, mtime=0),
    "deflate": lambda request: zlib.compress(request, 1),
    "zstd": zstandard.ZstdCompressor(level=1).compress,
}


class HttpSink:
    """Implements `telemetry.delivery.answers.Sink` over OTLP/HTTP with protobuf bodies."""

    def __init__(self, settings: SinkSettings, clock: Callable[[], int]) -> None:
        """Read the files that the settings name; nothing is sent yet.

        Args:
            settings: where the sink is.
            clock: nanoseconds since the epoch, for a `Retry-After` that is a date.

        Raises:
            TelemetrySettingsError: a certificate, key or token cannot be used.
        """
        self._settings = settings
        self._clock = clock
        self._compress = _COMPRESSORS.get(settings.compression)
        self._limited = Limited(settings.timeout_s * _STEPS)
        self._client = Renewed(self._new_client, settings.files, shown_url(settings.endpoint))

    @property
    def address(self) -> str:
        """The URL without its query, which may hold a secret."""
        return shown_url(self._settings.endpoint)

    def send(self, request: bytes) -> Answer:
        """Post the request and return the answer."""
        body = self._compress(request) if self._compress else request
        deadline = time.monotonic() + self._settings.timeout_s
        client, traced = self._client.current(), {"trace": self._limited.trace}
        with self._limited.request() as is_over:
            try:
                with client.stream("POST", self._settings.endpoint, content=body, extensions=traced) as response:
                    return self._answer(response, deadline)
            except httpx.TimeoutException as error:
                return self._timeout(self._settings.timeout_s, error)
            except httpx.RequestError as error:
                if is_over.is_set():
                    return self._timeout(self._settings.timeout_s * _STEPS, error)
                return Unreachable(
                    type(error).__name__, shown(hidden(f"{str(error) or type(error).__name__}{self._advice(error)}"))
                )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _advice(self, error: httpx.RequestError) -> str:
        # The messages of h11 about bytes that are not HTTP/1.1 begin with this word.
        if not (isinstance(error, httpx.RemoteProtocolError) and str(error).startswith("illegal")):
            return ""
        return f": the answer is not HTTP/1.1; write grpc://{urlsplit(self.address).netloc} where it is a port for gRPC"

    @staticmethod
    def _timeout(limit_s: float, error: Exception) -> Unreachable:
        return Unreachable("timeout", f"no answer within {limit_s:g} s ({type(error).__name__})")

    def _answer(self, response: httpx.Response, deadline: float) -> Answer:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_ANSWER_BYTES or time.monotonic() > deadline:
                return Refused(0, "not_otlp", "the answer does not end: is the URL right?")
        if response.status_code in {200, 204}:
            return answer_of_body(bytes(body), response.headers.get("content-type", ""))
        return Refused(
            response.status_code,
            str(response.status_code),
            f"{response.status_code} {response.reason_phrase}",
            retry_after_s(response.headers.get("retry-after"), self._clock() / 1e9),
        )

    def _new_client(self) -> httpx.Client:
        settings = self._settings
        headers = {**settings.read_headers(), "content-type": PROTOBUF, "user-agent": USER_AGENT}
        if settings.compression != "none":
            headers["content-encoding"] = settings.compression
        context = ssl.create_default_context(cafile=settings.certificate)
        if settings.client_certificate is not None:
            context.load_cert_chain(settings.client_certificate, settings.client_key)
        # A client with its own transport reads no proxy variables.
        transport = httpx.HTTPTransport(verify=context, proxy=settings.proxy)
        return httpx.Client(transport=transport, headers=headers, timeout=settings.timeout_s, follow_redirects=False)
