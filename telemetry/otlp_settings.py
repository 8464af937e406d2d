"""Reads the OTLP variables of one signal: a variable that names the signal comes before the one for all signals.

Source: OpenTelemetry Protocol Exporter, "Configuration Options"; timeouts are in seconds, as in the Python SDK.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Literal

from telemetry.otlp_headers import parse_headers
from telemetry.proxies import grpc_proxy, http_proxy
from telemetry.settings import SettingsReader

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["http/protobuf", "grpc"]

HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"
DEFAULT_TIMEOUT_S: Final = 10.0
LONGEST_TIMEOUT_S: Final = 3600


class OtlpVariables:
    """Reads `OTEL_EXPORTER_OTLP_<SIGNAL>_*`, then `OTEL_EXPORTER_OTLP_*`."""

    def __init__(self, reader: SettingsReader, signal: Signal) -> None:
        self._reader = reader
        self._signal = signal

    def names(self, suffix: str) -> tuple[str, str]:
        """Return the names of a variable, the more specific one first."""
        return f"OTEL_EXPORTER_OTLP_{self._signal.upper()}_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"

    def find(self, suffix: str) -> tuple[str, str] | None:
        """Return name and value of the variable that is used."""
        return self._reader.find(*self.names(suffix))

    def protocol(self) -> str | None:
        """Return the protocol that is asked for, None when no variable is set."""
        return self._reader.choice(self.names("PROTOCOL"), "", (HTTP, GRPC)) or None

    def headers(self, protocol: str) -> Mapping[str, str]:
        """Return the headers of every request."""
        return self._reader.parsed(
            self.names("HEADERS"), {}, lambda text: parse_headers(text, is_grpc=protocol == GRPC)
        )

    def timeout_s(self) -> float:
        """Return how many seconds a request may take."""

        def parse(text: str) -> float:
            try:
                timeout_s = float(text)
            except ValueError:
                timeout_s = 0.0
            if not 0.0 < timeout_s <= LONGEST_TIMEOUT_S:
                raise ValueError(f"{text!r} is not a number of seconds up to {LONGEST_TIMEOUT_S}")
            return timeout_s

        return self._reader.parsed(self.names("TIMEOUT"), DEFAULT_TIMEOUT_S, parse)

    def compression(self, protocol: str, known: Collection[str]) -> str:
        """Return how requests are compressed."""

        def parse(text: str) -> str:
            if text.lower() not in known:
                raise ValueError(f"{text!r} is none of {', '.join(sorted(known))}, over {protocol}")
            return text.lower()

        return self._reader.parsed(self.names("COMPRESSION"), "none", parse)

    def file(self, suffix: str) -> Path | None:
        """Return the file that a variable names; a file that cannot be read is a problem."""
        return self._reader.file(*self.names(suffix))

    def proxy(self, protocol: str, address: str) -> str | None:
        """Return the URL of the proxy to an address; the address is a URL for HTTP, `host:port` for gRPC."""
        proxy_to = grpc_proxy if protocol == GRPC else http_proxy
        return self._reader.checked(lambda: proxy_to(self._reader.environment, address))
