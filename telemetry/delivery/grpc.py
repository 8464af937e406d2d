"""OTLP over gRPC: the stored bytes in one unary call.

Source: OTLP specification, "OTLP/gRPC Response"; google.rpc.Status and RetryInfo. The packages have no types of their
own: what is used of them is declared here.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Final, Protocol, cast

from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from telemetry.delivery.answers import BAD_REQUEST, CONTENT_TOO_LARGE, Answer, Refused, Unreachable
from telemetry.delivery.responses import answer_of, shown
from telemetry.delivery.settings import SinkSettings
from telemetry.delivery.watched import Renewed
from telemetry.errors import TelemetrySettingsError
from telemetry.otlp_headers import Metadata, authorization, metadata_of
from telemetry.proxies import grpc_options

EXPORT: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


class _Code(Protocol):
    name: str


class _Call(Protocol):
    def code(self) -> _Code: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Metadata | None: ...


class _Export(Protocol):
    def __call__(self, request: bytes, *, timeout: float, metadata: Metadata, compression: object) -> bytes: ...


class _Channel(Protocol):
    def unary_unary(self, method: str) -> _Export: ...

    def close(self) -> None: ...


class _Compression(Protocol):
    NoCompression: object
    Deflate: object
    Gzip: object


class _Grpc(Protocol):
    """The part of gRPC that is used."""

    RpcError: type[Exception]
    Compression: _Compression

    def insecure_channel(self, target: str, options: Sequence[tuple[str, int | str]]) -> _Channel: ...

    def secure_channel(
        self, target: str, credentials: object, options: Sequence[tuple[str, int | str]]
    ) -> _Channel: ...

    def ssl_channel_credentials(
        self, root_certificates: bytes | None, private_key: bytes | None, certificate_chain: bytes | None
    ) -> object: ...


class _Status(Protocol):
    details: Sequence[Detail]


class _RetryInfo(Protocol):
    retry_delay: Duration


class _StatusType(Protocol):
    def FromString(self, serialized: bytes) -> _Status: ...  # noqa: N802 - protobuf's name


# Channels to one target would otherwise share a connection, and a new one would get the old one's.
_OPTIONS: Final[Sequence[tuple[str, int | str]]] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "auditrace"),
)

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
    """Implements `telemetry.delivery.Sink` over OTLP/gRPC."""

    def __init__(self, settings: SinkSettings) -> None:
        """Read the files that the settings name; nothing is sent yet.

        Raises:
            TelemetrySettingsError: a certificate, key or token cannot be read.
        """
        self._grpc = cast("_Grpc", import_module("grpc"))
        self._settings = settings
        kinds = self._grpc.Compression
        compressions = {"gzip": kinds.Gzip, "deflate": kinds.Deflate}
        self._compression = compressions.get(settings.compression, kinds.NoCompression)
        try:
            self._connection = Renewed(self._connect, settings.files, settings.endpoint)
        except (OSError, ValueError) as error:
            raise TelemetrySettingsError(f"the files for {settings.endpoint} cannot be used: {error}") from error

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
        except self._grpc.RpcError as error:
            call = cast("_Call", error)
            if call.code().name in _BROKEN:
                # gRPC would go on with a connection that nobody answers on, or wait longer than the relay does.
                self._connection.forget()
            return _answer_of_error(call)

    def close(self) -> None:
        """Close the channel."""
        self._connection.close()

    def _connect(self) -> "_Connection":
        settings = self._settings
        headers = dict(settings.headers)
        if settings.token_file is not None:
            headers["authorization"] = authorization(settings.token_file)
        options = [*_OPTIONS, *grpc_options(settings.proxy)]
        if not settings.is_secure:
            return _Connection(self._grpc.insecure_channel(settings.endpoint, options), headers)
        files = (settings.certificate, settings.client_key, settings.client_certificate)
        credentials = self._grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))
        return _Connection(self._grpc.secure_channel(settings.endpoint, credentials, options), headers)


class _Connection:
    """A channel with what every call on it carries."""

    def __init__(self, channel: _Channel, headers: Mapping[str, str]) -> None:
        self._channel = channel
        self.export = channel.unary_unary(EXPORT)
        self.metadata = metadata_of(headers)

    def close(self) -> None:
        self._channel.close()


def _answer_of_error(call: _Call) -> Answer:
    code, details = call.code().name, shown(call.details() or "")
    message = f"{code}: {details}" if details else code
    if code in _UNANSWERED:
        return Unreachable("timeout" if code == "DEADLINE_EXCEEDED" else code.lower(), message)
    status = _HTTP_STATUS.get(code, 0)
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in details:
        status = CONTENT_TOO_LARGE
    return Refused(status, code.lower(), message, _retry_delay_s(call.trailing_metadata() or ()))


def _retry_delay_s(metadata: Metadata) -> float | None:
    """Return what a `RetryInfo` among the details of the status asks for."""
    status = cast("_StatusType", import_module("google.rpc.status_pb2").Status)
    new_info = cast("Callable[[], Message]", import_module("google.rpc.error_details_pb2").RetryInfo)
    for key, value in metadata:
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        for detail in status.FromString(value).details:
            info = new_info()
            if detail.Unpack(info):
                delay = cast("_RetryInfo", info).retry_delay
                return max(0.0, delay.seconds + delay.nanos / 1e9)
    return None
