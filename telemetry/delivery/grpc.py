"""OTLP over gRPC: each request is one unary call with the stored bytes.

Source: OTLP specification, "OTLP/gRPC Response"; google.rpc.Status and RetryInfo, whose package has no types.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from telemetry.delivery.answers import BAD_REQUEST, CONTENT_TOO_LARGE, Answer, Refused, Unreachable
from telemetry.delivery.responses import answer_of, shown
from telemetry.delivery.settings import SinkSettings
from telemetry.delivery.watched import Renewed
from telemetry.files import read_regular
from telemetry.otlp_headers import metadata_of
from telemetry.proxies import grpc_options

EXPORT: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

# Channels to one target would otherwise share a connection, and a new channel would get the connection of the old one.
_OPTIONS: Final[Sequence[tuple[str, int | str]]] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "auditrace"),
)
_COMPRESSIONS: Final = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}

_HTTP_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": BAD_REQUEST,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "UNIMPLEMENTED": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}
_UNANSWERED: Final = {"DEADLINE_EXCEEDED", "CANCELLED"}
_BROKEN: Final = {*_UNANSWERED, "UNAVAILABLE"}
_TOO_LARGE: Final = "larger than max"


class GrpcSink:
    """Implements `telemetry.delivery.answers.Sink` over OTLP/gRPC."""

    def __init__(self, settings: SinkSettings) -> None:
        """Read the files that the settings name; nothing is sent yet.

        Raises:
            TelemetrySettingsError: a certificate, key or token cannot be read.
        """
        self._settings = settings
        self._compression = _COMPRESSIONS.get(settings.compression, grpc.Compression.NoCompression)
        self._connection = Renewed(self._connect, settings.files, settings.endpoint)

    @property
    def address(self) -> str:
        """The target, with its scheme."""
        return f"{'grpcs' if self._settings.is_secure else 'grpc'}://{self._settings.endpoint}"

    def send(self, request: bytes) -> Answer:
        """Call `Export` and return the answer."""
        connection = self._connection.current()
        try:
            response = connection.export(
                request,
                timeout=self._settings.timeout_s,
                metadata=connection.metadata,
                compression=self._compression,
            )
            return answer_of(ExportLogsServiceResponse.FromString(response))
        except DecodeError:
            return Refused(0, "not_otlp", "the answer is no OTLP response: is the endpoint right?")
        except grpc.RpcError as error:
            if error.code().name in _BROKEN:
                # gRPC would keep a broken connection, or wait longer than the relay before it connects again.
                self._connection.forget()
            return _answer_of_error(error)

    def close(self) -> None:
        """Close the channel."""
        self._connection.close()

    def _connect(self) -> "_Connection":
        settings = self._settings
        headers = settings.read_headers()
        options = [*_OPTIONS, *grpc_options(settings.proxy)]
        if not settings.is_secure:
            return _Connection(grpc.insecure_channel(settings.endpoint, options), headers)
        files = (settings.certificate, settings.client_key, settings.client_certificate)
        credentials = grpc.ssl_channel_credentials(*(read_regular(file) if file else None for file in files))
        return _Connection(grpc.secure_channel(settings.endpoint, credentials, options), headers)


class _Connection:
    """A channel, and the metadata that every call on it carries."""

    def __init__(self, channel: grpc.Channel, headers: Mapping[str, str]) -> None:
        self.export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)
        self.metadata = tuple(metadata_of(headers))
        self.close = channel.close


def _answer_of_error(error: grpc.RpcError) -> Answer:
    code, details = error.code().name, shown(error.details() or "")
    message = f"{code}: {details}" if details else code
    if code in _UNANSWERED:
        return Unreachable("timeout" if code == "DEADLINE_EXCEEDED" else code.lower(), message)
    status = _HTTP_STATUS.get(code, 0)
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in details:
        status = CONTENT_TOO_LARGE
    return Refused(status, code.lower(), message, _retry_delay_s(error))


def _retry_delay_s(error: grpc.RpcError) -> float | None:
    """Return the delay that a `RetryInfo` among the details of the status asks for."""
    status = import_module("google.rpc.status_pb2").Status
    info = import_module("google.rpc.error_details_pb2").RetryInfo()
    for entry in error.trailing_metadata() or ():
        if entry.key != "grpc-status-details-bin":
            continue
        for detail in status.FromString(entry.value).details:
            if detail.Unpack(info):
                return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))
    return None
