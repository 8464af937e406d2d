"""Sends one record to an endpoint, over HTTP: one request at a time, on a connection that is kept.

Source: Standard Webhooks 1.0.0, "Delivery success and failure"; https://www.python-httpx.org/advanced/extensions/,
"sni_hostname".
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from service.errors import SettingsError
from service.ports import WebhookRecord
from service.private_files import read_private_file
from service.webhooks.addresses import Resolve
from service.webhooks.endpoints import WebhookEndpoint
from service.webhooks.payload import payload_of
from service.webhooks.route import Route
from service.webhooks.signing import headers_of, parse_secrets
from telemetry.delivery.answers import Accepted, Answer, Refused, Unreachable
from telemetry.delivery.http import USER_AGENT
from telemetry.delivery.limited import Limited
from telemetry.delivery.responses import retry_after_s, shown
from telemetry.delivery.watched import Renewed
from telemetry.urls import hidden

_MOST_READ_BYTES: Final = 16 * 1024
"""A longer answer is not read to its end; the connection is closed instead of kept."""
_ADVICE: Final[Mapping[int, str]] = {
    410: ": it wants no more webhooks; take it out of webhooks.toml, or correct the URL",
}


class WebhookSender:
    """The connection to one endpoint. Secrets and certificates are read again after they change; for one thread."""

    def __init__(
        self, endpoint: WebhookEndpoint, resolve: Resolve, clock: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        """Read the files of the endpoint; nothing is sent yet.

        Raises:
            TelemetrySettingsError: the secret or the certificates cannot be used.
        """
        self._endpoint = endpoint
        self._clock = clock
        self._route = Route(endpoint, resolve, monotonic)
        self._limited = Limited(endpoint.timeout_s)
        self._opened = Renewed(lambda: _Opened(endpoint), endpoint.files, endpoint.address)

    def send(self, record: WebhookRecord) -> Answer:
        """Send a record and return the answer; only 2xx accepts it. It raises nothing: a failure is an answer too."""
        address = self._route.address()
        if isinstance(address, Unreachable):
            return address
        answer = self._post(address, record)
        if isinstance(answer, Unreachable):
            self._route.failed()
        return answer

    def close(self) -> None:
        """Close the connection; a request in progress fails."""
        self._opened.close()

    def _post(self, address: str, record: WebhookRecord) -> Answer:
        endpoint, opened, body = self._endpoint, self._opened.current(), payload_of(record)
        host = f"[{address}]" if ":" in address else address
        headers = headers_of(opened.secrets, record.record_id, self._clock() // 1_000_000_000, body)
        request = opened.client.build_request(
            "POST",
            f"{endpoint.scheme}://{host}:{endpoint.port}{endpoint.target}",
            content=body,
            headers={**headers, "host": endpoint.authority},
            # The certificate must be that of the name, whichever address it has.
            extensions={"sni_hostname": endpoint.host, "trace": self._limited.trace},
        )
        with self._limited.request() as is_over:
            try:
                return self._answer(opened.client.send(request, stream=True))
            except httpx.TimeoutException as error:
                return self._timeout(error)
            except httpx.RequestError as error:
                if is_over.is_set():
                    return self._timeout(error)
                return Unreachable(type(error).__name__, shown(hidden(str(error) or type(error).__name__)))

    def _timeout(self, error: Exception) -> Unreachable:
        return Unreachable("timeout", f"no answer within {self._endpoint.timeout_s:g} s ({type(error).__name__})")

    def _answer(self, response: httpx.Response) -> Answer:
        # The status is the answer. The rest is read only so that the connection can be used again.
        with suppress(httpx.HTTPError):
            try:
                _skip(response)
            finally:
                response.close()
        if response.is_success:
            return Accepted()
        status = response.status_code
        advice = ": redirects are not followed; correct the URL" if response.is_redirect else _ADVICE.get(status, "")
        asked_s = retry_after_s(response.headers.get("retry-after"), self._clock() / 1e9)
        return Refused(status, str(status), f"{status} {shown(response.reason_phrase)}{advice}", asked_s)


class _Opened:
    """What is made from the files of an endpoint: the client with its connection, and the secrets."""

    def __init__(self, endpoint: WebhookEndpoint) -> None:
        """Read the files.

        Raises:
            ValueError: they cannot be used.
        """
        self.secrets = secrets_of(endpoint)
        try:
            context = ssl.create_default_context(cafile=endpoint.ca_file)
        except OSError as error:
            raise ValueError(f"the certificates {endpoint.ca_file}: {error}") from error
        # A client with its own transport reads no proxy variables: a proxy would connect to addresses of its own.
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(verify=context),
            headers={"content-type": "application/json", "user-agent": USER_AGENT},
            timeout=endpoint.timeout_s,
            follow_redirects=False,
            # No cookie of a receiver is kept or sent.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self.close = self.client.close


def secrets_of(endpoint: WebhookEndpoint) -> Sequence[bytes]:
    """Return the secrets of an endpoint.

    Raises:
        ValueError: the file is missing, open to others, or does not hold secrets.
    """
    try:
        content = read_private_file(endpoint.secret_file, "secret", "make it as docs/webhooks.md says")
    except SettingsError as error:
        raise ValueError("; ".join(error.problems)) from error
    try:
        return parse_secrets(content.decode("ascii"))
    except ValueError as error:
        raise ValueError(f"the secret {endpoint.secret_file}: {error}") from error


def _skip(response: httpx.Response) -> None:
    read = 0
    for chunk in response.iter_raw():
        read += len(chunk)
        if read > _MOST_READ_BYTES:
            return
