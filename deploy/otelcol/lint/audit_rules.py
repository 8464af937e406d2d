"""Rules of the audit pipeline: receiver, processors, exporters, and the route for records sent to the wrong port."""

import re
from collections.abc import Iterator

from deploy.otelcol.lint.configuration import (
    AUDIT_RECEIVER,
    QUEUEING,
    Configuration,
    Pipeline,
    kind_of,
    mapping,
    sequence,
    walk,
)
from deploy.otelcol.lint.rule import Rule

# These processors acknowledge before the exporter has the data, or hold it in memory.
_ASYNC = {"groupbyattrs", "groupbytrace", "interval", "logdedup", "queuebatch", "tail_sampling"}
# These exporters acknowledge when the line is written, or when the request is in their queue.
_DURABLE = QUEUEING | {"file"}

_CONDITION = re.compile(r'\s*(log\.attributes\["audit\.record\.id"\])\s*(==|!=)\s*nil\s*')


def _receiver(config: Configuration) -> Iterator[str]:
    fed = [pipeline for pipeline in config.pipelines if AUDIT_RECEIVER in pipeline.receivers]
    if len(fed) != 1 or fed[0].signal != "logs":
        yield f"receivers::{AUDIT_RECEIVER}"


def _ports(config: Configuration) -> Iterator[str]:
    endpoints = {
        name: {str(value) for place, value in walk(settings, "") if place.endswith("::endpoint")}
        for name, settings in mapping(config.at("receivers")).items()
    }
    audit = endpoints.pop(AUDIT_RECEIVER, set())
    if any(audit & others for others in endpoints.values()):
        yield f"receivers::{AUDIT_RECEIVER}::protocols"


def _batch(config: Configuration) -> Iterator[str]:
    for pipeline in config.pipelines:
        for name in pipeline.processors:
            if kind_of(name) == "batch":
                yield f"{pipeline.place}::processors::{name}"


def _async(config: Configuration) -> Iterator[str]:
    for pipeline in [*config.audit_pipelines(), *config.astray()]:
        for name in pipeline.processors:
            if kind_of(name) in _ASYNC:
                yield f"{pipeline.place}::processors::{name}"


def _processors(config: Configuration) -> Iterator[str]:
    allowed = _ASYNC | {"batch", "memory_limiter"}
    for pipeline in config.audit_pipelines():
        for name in pipeline.processors:
            if kind_of(name) not in allowed:
                yield f"{pipeline.place}::processors::{name}"
    for pipeline in config.astray():
        for name in pipeline.processors:
            if kind_of(name) not in allowed | {"filter"}:
                yield f"{pipeline.place}::processors::{name}"


def _memory_limiter(config: Configuration) -> Iterator[str]:
    for pipeline in config.pipelines:
        comes_from_outside = any(name not in config.connectors for name in pipeline.receivers)
        if comes_from_outside and kind_of(next(iter(pipeline.processors), "")) != "memory_limiter":
            yield f"{pipeline.place}::processors"


def _fan_out(config: Configuration) -> Iterator[str]:
    for pipeline in config.audit_pipelines():
        for name in pipeline.exporters:
            if kind_of(name) not in _DURABLE:
                yield f"{pipeline.place}::exporters::{name}"


def _archive(config: Configuration) -> Iterator[str]:
    if not any(kind_of(name) == "file" for name, _ in config.audit_exporters()):
        yield from (pipeline.place for pipeline in config.audit_pipelines())


def _astray_route(config: Configuration) -> Iterator[str]:
    if config.ordinary_logs() and not config.astray():
        yield "service::pipelines"


def _astray_filters(config: Configuration) -> Iterator[str]:
    astray = config.astray()
    for pipeline in config.ordinary_logs() if astray else ():
        # A filter drops what its condition matches. The astray route drops logs without a record id, the other route
        # drops logs with one.
        if _dropped(config, pipeline) != ("==" if pipeline in astray else "!="):
            yield f"{pipeline.place}::processors"


def _dropped(config: Configuration, pipeline: Pipeline) -> str | None:
    """Return the operator with which the pipeline's only filter compares the record id to nil, else None."""
    filters = [name for name in pipeline.processors if kind_of(name) == "filter"]
    if len(filters) != 1:
        return None
    settings = mapping(config.at("processors", filters[0]))
    conditions = sequence(settings.get("log_conditions")) or sequence(mapping(settings.get("logs")).get("log_record"))
    if len(conditions) != 1:
        return None
    found = _CONDITION.fullmatch(str(conditions[0]))
    return found[2] if found else None


def _astray_errors(config: Configuration) -> Iterator[str]:
    for pipeline in config.ordinary_logs():
        for name in pipeline.processors:
            if kind_of(name) == "filter" and config.at("processors", name, "error_mode") != "propagate":
                yield f"processors::{name}::error_mode"


def _routing(config: Configuration) -> Iterator[str]:
    for name, settings in config.components_of("connectors", "routing"):
        if not settings.get("default_pipelines") or settings.get("error_mode", "propagate") != "propagate":
            yield f"connectors::{name}"


RULES = (
    Rule(
        "audit-receiver",
        _receiver,
        "records that share a receiver or pipeline with other data are refused and acknowledged together with it",
        f"give {AUDIT_RECEIVER} exactly one pipeline, for logs",
    ),
    Rule(
        "audit-ports",
        _ports,
        "ordinary telemetry on the same port shares its limits and its authentication",
        f"give {AUDIT_RECEIVER} addresses of its own",
    ),
    Rule(
        "batch-processor",
        _batch,
        "it acknowledges before the export, hides every error, and is being removed from the collector",
        "remove it and batch in the exporter's sending_queue, but never in the queue of an audit exporter",
    ),
    Rule(
        "async-processor",
        _async,
        "it acknowledges records that it holds in memory, or drops some of them",
        "remove it from the pipelines of audit records",
    ),
    Rule(
        "audit-processor",
        _processors,
        "a processor that changes a record breaks its hash, and one that drops a record loses it",
        "keep only memory_limiter in the pipelines of audit records, and the filter that separates them from others",
    ),
    Rule(
        "memory-limiter-first",
        _memory_limiter,
        "a collector that is killed for its memory loses what is not on disk, and one that refuses requests does not",
        "make memory_limiter the first processor of every pipeline with a receiver",
    ),
    Rule(
        "audit-fan-out",
        _fan_out,
        "each of its exporters can refuse the request for all, and one without a durable queue loses what it accepted",
        "keep only exporters that write before they acknowledge: file, otlp_http, otlp_grpc, kafka, awss3",
    ),
    Rule(
        "audit-archive",
        _archive,
        "a record that the store refuses permanently is deleted from the queue, and exists only in the archive",
        "add a file exporter to the audit pipeline",
    ),
    Rule(
        "astray-route",
        _astray_route,
        "an audit record sent to the wrong port would be in memory only, and be lost with it",
        "forward records with an audit.record.id to the audit pipeline, with a filter and a forward connector",
    ),
    Rule(
        "astray-filters",
        _astray_filters,
        "a record that both filters drop is acknowledged and lost, and one that neither drops is stored twice",
        'give the astray route one filter, log.attributes["audit.record.id"] == nil, and the other route one with !=',
    ),
    Rule(
        "astray-errors",
        _astray_errors,
        "with any other mode a failed condition sends the record to the wrong pipeline",
        "set error_mode: propagate; the default is ignore",
    ),
    Rule(
        "routing-default",
        _routing,
        "a record that matches no route is dropped and acknowledged",
        "set default_pipelines, and error_mode: propagate",
    ),
)
