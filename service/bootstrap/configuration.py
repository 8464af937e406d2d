"""Says what a process applies, as one flat document: what weakens the trail, or directs it elsewhere, shows in it.

Every setting is listed here or left out with a reason; `tests/unit/test_configuration.py` compares both with the
settings. A value that may hold a secret occurs without it, and beside it a keyed hash, so that a change shows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from service.config import NO_LIMIT, Settings
from service.jobs.templates import Template, Templates
from service.operations.filters import filter_text
from service.operations.rates import Limit, Rate
from service.ports import SINK, Configuration, SettingValue
from service.webhooks import WebhookEndpoint
from telemetry.audit.canonical import Value, canonical_bytes, sha256_hex
from telemetry.delivery.settings import SinkSettings, sink_settings
from telemetry.otel_settings import SIGNALS, SignalSettings, read_otel_settings
from telemetry.otlp_settings import GRPC
from telemetry.urls import shown


class ConfiguredPart(StrEnum):
    """A part of a process, as far as it applies settings."""

    LEDGER = "ledger"
    """Lanes, checkpoints and self-check."""
    API = "api"
    WORKER = "worker"
    RELAY = "relay"


Mask = Callable[[str], str]
"""Returns the keyed hash of a secret."""

LISTED: Final[Mapping[str, ConfiguredPart]] = {
    "needs_standby": ConfiguredPart.LEDGER,
    "checkpoint_interval_ms": ConfiguredPart.LEDGER,
    "self_check_interval_ms": ConfiguredPart.LEDGER,
    "min_free_bytes": ConfiguredPart.LEDGER,
    "shutdown_grace_ms": ConfiguredPart.LEDGER,
    "host": ConfiguredPart.API,
    "max_input_bytes": ConfiguredPart.API,
    "isolation": ConfiguredPart.WORKER,
    "worker_slots": ConfiguredPart.WORKER,
    "run_lease_ms": ConfiguredPart.WORKER,
    "run_renew_ms": ConfiguredPart.WORKER,
}
"""The settings whose values count as they are, each with the part that applies it."""

OTHERWISE: Final[Mapping[str, str]] = {
    "jwt": "jwt.…",
    "limits": "limits.…",
    "proxies": "proxies.…",
    "audit_endpoint": "sink.endpoint",
    "audit_token_file": "sink.token_file",
    "archive": "sink.archive",
    "webhooks": "webhooks.…",
    "environment": "telemetry.… and sink.…, from its OTEL_* variables",
    "templates": "the templates themselves",
    "signing_key": "the fingerprint of the key that signs",
}
"""The settings that count in another form."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "database": "it is the ledger that the record is in; another one knows nothing of this one",
    "archive_max_bytes": "it divides the archive into files; nothing is deleted",
    "signing_key_passphrase": "it only opens the key",
    "ledger_secret": "a process with another secret does not start",
    "admin_key": "keys have records of their own",
    "port": "processes on one host differ in it",
    "trace_url_template": "a link for people",
    "lanes": "it changes the speed only",
    "connections_per_source": "it divides the connections among clients",
    "work_folder": "runs use it, not the trail",
    "problems": "nothing starts with problems",
}
"""The settings that do not count, each with the reason."""

_FILES_OF_SINK: Final = ("certificate", "client_certificate", "client_key", "token_file")

TELEMETRY_LISTED: Final = (
    *("sampler", "sampler_ratio", *SIGNALS, "exporters", "protocol", "endpoint", "is_secure", "headers", "proxy"),
    *_FILES_OF_SINK,
)
"""The members of `OtelSettings`, `SignalSettings` and `SinkSettings` that count."""

TELEMETRY_LEFT_OUT: Final[Mapping[str, str]] = {
    "resource": "every record states it, and parts of it differ from process to process",
    "timeout_s": "what takes too long is sent again",
    "compression": "what is sent is the same",
}
"""Those that do not count, each with the reason."""


class Stated(msgspec.Struct, frozen=True):
    """A configuration, and the texts of its templates by name."""

    configuration: Configuration
    texts: Mapping[str, str]


def stated(
    settings: Settings,
    parts: frozenset[ConfiguredPart],
    mask: Mask,
    *,
    version: str,
    fingerprint: str | None = None,
    templates: Templates | None = None,
    endpoints: Sequence[WebhookEndpoint] = (),
) -> Stated:
    """Return what a process with these parts applies.

    Args:
        settings: its settings, without problems.
        parts: what it has.
        mask: hashes secrets.
        version: the version of the code.
        fingerprint: the key that signs checkpoints; None without the part `ledger`.
        templates: what may run; None without the part `api`.
        endpoints: of the webhooks that it delivers.
    """
    values: dict[str, SettingValue] = {"version": version, "parts": _listed(parts)}
    if fingerprint is not None:
        values["signing_key"] = fingerprint
    values |= {name: getattr(settings, name) for name, part in LISTED.items() if part in parts}
    # A worker claims no jobs of tenants that store too much.
    applied = Limit if ConfiguredPart.API in parts else [Limit.TENANT_BYTES] if ConfiguredPart.WORKER in parts else ()
    values |= {f"limits.{limit}": _limit(getattr(settings.limits, limit)) for limit in applied}
    if ConfiguredPart.API in parts and settings.jwt is not None:
        jwt = settings.jwt
        values |= {f"jwt.{name}": value for name, value in msgspec.structs.asdict(jwt).items() if value is not None}
        values |= _address("jwt.jwks", jwt.jwks, mask) if "://" in jwt.jwks else {"jwt.jwks": _path(Path(jwt.jwks))}
    if ConfiguredPart.API in parts:
        given = msgspec.structs.asdict(settings.proxies)
        given["trusted"] = ", ".join(map(str, settings.proxies.trusted))
        values |= {f"proxies.{name}": value for name, value in given.items() if value}
    if ConfiguredPart.RELAY in parts:
        values |= dict(_sink(settings, mask))
        values |= dict(_webhooks(endpoints, mask))
    values |= dict(_telemetry(settings, mask))
    texts = {name: template_text(template) for name, template in (templates or {}).items()}
    hashes = {name: sha256_hex(text.encode()) for name, text in texts.items()}
    return Stated(Configuration(values, hashes), texts)


def template_text(template: Template) -> str:
    """Return the RFC 8785 text of a template, as it is in force: with its defaults."""
    described: dict[str, Value | None] = msgspec.to_builtins(template.describe())
    return canonical_bytes({name: value for name, value in described.items() if value is not None}).decode()


def sink_of(settings: Settings) -> SinkSettings | None:
    """Return where the settings deliver records; None for the embedded archive."""
    return sink_settings(settings.environment, settings.audit_endpoint, settings.audit_token_file)


def address_of(sink: SinkSettings) -> str:
    """Return the URL of a sink, also for gRPC."""
    if sink.protocol == GRPC:
        return f"grpc{'s' if sink.is_secure else ''}://{sink.endpoint}"
    return sink.endpoint


def masked_headers(headers: Mapping[str, str], mask: Mask) -> str:
    """Return the keyed hash of headers."""
    return mask(canonical_bytes(headers).decode())


def _sink(settings: Settings, mask: Mask) -> Iterator[tuple[str, SettingValue]]:
    sink = sink_of(settings)
    if sink is None:
        yield f"{SINK}archive", _path(settings.archive)
        return
    yield from _address(f"{SINK}endpoint", address_of(sink), mask).items()
    yield from _way(SINK, sink, mask)
    for name in _FILES_OF_SINK:
        path: Path | None = getattr(sink, name)
        if path is not None:
            yield f"{SINK}{name}", _path(path)


def _webhooks(endpoints: Sequence[WebhookEndpoint], mask: Mask) -> Iterator[tuple[str, SettingValue]]:
    for endpoint in endpoints:
        prefix = f"webhooks.{endpoint.name}."
        yield f"{prefix}address", f"{endpoint.scheme}://{endpoint.authority}"
        # A path may hold a secret.
        yield f"{prefix}path.secret", mask(endpoint.target)
        yield f"{prefix}filter", filter_text(endpoint.where)
        yield f"{prefix}from_start", endpoint.from_start
        yield f"{prefix}allow_private", ", ".join(map(str, endpoint.allowed))
        yield f"{prefix}allow_http", endpoint.may_be_plain
        yield f"{prefix}secret_file", _path(endpoint.secret_file)
        yield f"{prefix}ca_file", "" if endpoint.ca_file is None else _path(endpoint.ca_file)


def _telemetry(settings: Settings, mask: Mask) -> Iterator[tuple[str, SettingValue]]:
    found = read_otel_settings(settings.environment)
    yield "telemetry.sampler", found.sampler
    yield "telemetry.sampler_ratio", f"{found.sampler_ratio:g}"
    for name, signal in zip(SIGNALS, (found.traces, found.metrics, found.logs), strict=True):
        prefix = f"telemetry.{name}."
        yield f"{prefix}exporters", _listed(signal.exporters)
        if signal.endpoint is not None:
            yield f"{prefix}protocol", signal.protocol
            yield from _address(f"{prefix}endpoint", signal.endpoint, mask).items()
            yield from _way(prefix, signal, mask)


def _way(prefix: str, to: SinkSettings | SignalSettings, mask: Mask) -> Iterator[tuple[str, SettingValue]]:
    if to.headers:
        yield f"{prefix}headers", masked_headers(to.headers, mask)
    if to.proxy is not None:
        yield f"{prefix}proxy", shown(to.proxy)
        if shown(to.proxy) != to.proxy:
            yield f"{prefix}proxy.secret", mask(to.proxy)


def _address(name: str, url: str, mask: Mask) -> Mapping[str, SettingValue]:
    """Return an address without user, password, query and fragment; if it has any of these, also its keyed hash."""
    plain = shown(url)
    return {name: plain} if plain == url else {name: plain, f"{name}.secret": mask(url)}


def _limit(value: Rate | int | None) -> str:
    if value is None:
        return NO_LIMIT
    return f"{value.amount} in {value.seconds} s" if isinstance(value, Rate) else str(value)


def _path(path: Path) -> str:
    # Another folder behind the same name is another path.
    return str(path.resolve())


def _listed(names: frozenset[str] | frozenset[ConfiguredPart]) -> str:
    return ", ".join(sorted(map(str, names)))
