"""Rules of the collector's own logs and metrics, and of its components."""

from collections.abc import Iterator

from deploy.otelcol.lint.configuration import RENAMED, Configuration, mapping
from deploy.otelcol.lint.rule import Rule

_SECTIONS = ("receivers", "processors", "exporters", "connectors", "extensions")


def _logs(config: Configuration) -> Iterator[str]:
    # On by default.
    if config.at("service", "telemetry", "logs", "sampling", "enabled") is not False:
        yield "service::telemetry::logs::sampling::enabled"


def _log_level(config: Configuration) -> Iterator[str]:
    level = config.at("service", "telemetry", "logs", "level")
    if str(level or "info").lower() not in {"debug", "info", "warn"}:
        yield "service::telemetry::logs::level"


def _metrics(config: Configuration) -> Iterator[str]:
    metrics = mapping(config.at("service", "telemetry", "metrics"))
    # Only `detailed` separates permanent errors, which delete records, from other errors.
    if metrics.get("level") != "detailed" or not metrics.get("readers"):
        yield "service::telemetry::metrics"


def _names(config: Configuration) -> Iterator[str]:
    for section in _SECTIONS:
        for name in mapping(config.at(section)):
            kind = name.partition("/")[0]
            if kind in RENAMED or (section, kind) == ("exporters", "otlp"):
                yield f"{section}::{name}"


def _manifest(config: Configuration) -> Iterator[str]:
    if config.components is None:
        return
    for section in _SECTIONS:
        for name in mapping(config.at(section)):
            kind = name.partition("/")[0]
            # The exporter's module is still called by its old name.
            module = "otlp" if (section, kind) == ("exporters", "otlp_grpc") else kind.replace("_", "")
            if (section, module) not in config.components:
                yield f"{section}::{name}"


RULES = (
    Rule(
        "own-logs-sampling",
        _logs,
        "repeated messages are dropped by default, and messages about lost data are repeated",
        "set service::telemetry::logs::sampling::enabled: false",
    ),
    Rule(
        "own-logs-level",
        _log_level,
        "a partial success of the store is only a warning",
        "set the level to warn or lower",
    ),
    Rule(
        "own-metrics",
        _metrics,
        "otherwise refusals and losses are not visible",
        "set the level to detailed and add a reader",
    ),
    Rule(
        "current-names",
        _names,
        "the old name of the component will be removed",
        "use the present name: " + ", ".join(sorted({*RENAMED.values(), "otlp_grpc"})),
    ),
    Rule(
        "manifest",
        _manifest,
        "the collector would not start",
        "use only components of the builder manifest, or add them to it",
    ),
)
