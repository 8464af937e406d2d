"""Sends OTLP requests as an SDK or the relay does, and shows the answer as it came."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb

from tests.support.otlp_messages import TYPE_OF_SERVICE, Message, Response

_RESPONSES: Mapping[type[Message], type[Response]] = {
    logs_pb.ExportLogsServiceRequest: logs_pb.ExportLogsServiceResponse,
    trace_pb.ExportTraceServiceRequest: trace_pb.ExportTraceServiceResponse,
    metrics_pb.ExportMetricsServiceRequest: metrics_pb.ExportMetricsServiceResponse,
}


class Reply(NamedTuple):
    """An HTTP answer, whatever its status."""

    status: int
    body: bytes


def post(
    url: str,
    message: Message,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 30.0,
) -> Reply:
    """Sends a request over OTLP/HTTP, on a connection of its own, and returns the answer.

    Raises:
        OSError: There was no answer; a refused TLS handshake included.
    """
    request = urllib.request.Request(
        url, message.SerializeToString(), {"Content-Type": "application/x-protobuf", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s, context=tls) as answer:
            return Reply(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read())


def export(
    endpoint: str,
    message: Message,
    *,
    headers: Mapping[str, str] | None = None,
    tls: grpc.ChannelCredentials | None = None,
    timeout_s: float = 30.0,
) -> grpc.StatusCode:
    """Sends a request over OTLP/gRPC, on a channel of its own, and returns the status of the answer.

    Without a connection the status is UNAVAILABLE, as it is for a refused TLS handshake.
    """
    (service,) = (name for name, kind in TYPE_OF_SERVICE.items() if isinstance(message, kind))
    opened = grpc.secure_channel(endpoint, tls) if tls else grpc.insecure_channel(endpoint)
    with opened as channel:
        call = channel.unary_unary(
            f"/{service}/Export",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=_RESPONSES[type(message)].FromString,
        )
        try:
            call(message, timeout=timeout_s, metadata=tuple((headers or {}).items()))
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK
