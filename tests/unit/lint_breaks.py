"""For each rule of the collector's lint, changes of a shipped configuration that break this rule and no other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GONE = object()
"""Stands for a setting that is taken out."""

STORE = "exporters::otlp_http/audit_store"
QUEUE = f"{STORE}::sending_queue"
RETRY = f"{STORE}::retry_on_failure"
ARCHIVE = "exporters::file/audit_archive"
SAMPLING = "processors::tail_sampling"
PIPELINES = "service::pipelines"
STORAGE = "extensions::file_storage/audit"
DROP = {"name": "no-health", "type": "drop", "drop": {"drop_sub_policy": []}}


@dataclass(frozen=True)
class Break:
    """Changes that break one rule in one of the shipped configurations."""

    rule: str
    changes: Mapping[str, Any]
    of: str = "base"
    at: str | None = None
    """Where the finding is; None: at the place of the only change."""

    def __str__(self) -> str:
        return f"{self.rule}: {', '.join(self.changes)}"


BREAKS = [
    Break("audit-receiver", {f"{PIPELINES}::traces::receivers": ["otlp", "otlp/audit"]}, at="receivers::otlp/audit"),
    Break("audit-receiver", {f"{PIPELINES}::logs/audit": GONE}, at="receivers::otlp/audit"),
    Break(
        "audit-ports",
        {"receivers::otlp::protocols::http::endpoint": "0.0.0.0:4328"},
        at="receivers::otlp/audit::protocols",
    ),
    Break(
        "batch-processor",
        {f"{PIPELINES}::logs/audit::processors": ["memory_limiter", "batch"]},
        at=f"{PIPELINES}::logs/audit::processors::batch",
    ),
    Break(
        "batch-processor",
        {f"{PIPELINES}::metrics::processors": ["memory_limiter", "batch/metrics"]},
        at=f"{PIPELINES}::metrics::processors::batch/metrics",
    ),
    *(
        Break(
            "async-processor",
            {f"{PIPELINES}::logs/audit::processors": ["memory_limiter", name]},
            at=f"{PIPELINES}::logs/audit::processors::{name}",
        )
        for name in ("groupbyattrs", "groupbytrace", "interval", "logdedup", "queuebatch", "tail_sampling/logs")
    ),
    Break(
        "async-processor",
        {f"{PIPELINES}::logs/misdirected::processors": ["memory_limiter", "filter/not_audit", "logdedup"]},
        at=f"{PIPELINES}::logs/misdirected::processors::logdedup",
    ),
    *(
        Break(
            "audit-processor",
            {f"{PIPELINES}::logs/audit::processors": ["memory_limiter", name]},
            at=f"{PIPELINES}::logs/audit::processors::{name}",
        )
        for name in ("transform", "attributes", "resource", "redaction", "filter/audit", "probabilistic_sampler")
    ),
    Break(
        "audit-processor",
        {f"{PIPELINES}::logs/misdirected::processors": ["memory_limiter", "filter/not_audit", "transform"]},
        at=f"{PIPELINES}::logs/misdirected::processors::transform",
    ),
    Break("memory-limiter-first", {f"{PIPELINES}::logs/audit::processors": []}),
    Break("memory-limiter-first", {f"{PIPELINES}::logs/app::processors": ["filter/audit", "memory_limiter"]}),
    Break("memory-limiter-first", {f"{PIPELINES}::traces::processors": GONE}),
    *(
        Break(
            "audit-fan-out",
            {f"{PIPELINES}::logs/audit::exporters": ["file/audit_archive", "otlp_http/audit_store", name]},
            at=f"{PIPELINES}::logs/audit::exporters::{name}",
        )
        for name in ("debug", "loadbalancing", "count", "prometheus")
    ),
    Break(
        "audit-archive",
        {f"{PIPELINES}::logs/audit::exporters": ["otlp_http/audit_store"]},
        at=f"{PIPELINES}::logs/audit",
    ),
    Break("astray-route", {f"{PIPELINES}::logs/misdirected": GONE}, at=PIPELINES),
    Break(
        "astray-filters",
        {"processors::filter/audit::log_conditions": ['log.attributes["audit.action"] != nil']},
        at=f"{PIPELINES}::logs/app::processors",
    ),
    Break(
        "astray-filters",
        {"processors::filter/audit::log_conditions": ['log.attributes["audit.record.id"] == nil']},
        at=f"{PIPELINES}::logs/app::processors",
    ),
    Break(
        "astray-filters",
        {"processors::filter/not_audit::log_conditions": []},
        at=f"{PIPELINES}::logs/misdirected::processors",
    ),
    Break("astray-filters", {f"{PIPELINES}::logs/app::processors": ["memory_limiter"]}),
    Break("astray-errors", {"processors::filter/audit::error_mode": "ignore"}),
    Break("astray-errors", {"processors::filter/not_audit::error_mode": GONE}),
    Break("routing-default", {"connectors::routing": {"table": []}}),
    Break("routing-default", {"connectors::routing": {"default_pipelines": ["logs/app"], "error_mode": "ignore"}}),
    Break("queue-storage", {f"{QUEUE}::storage": GONE}),
    Break("queue-storage", {QUEUE: {"sizer": "bytes", "queue_size": 1, "num_consumers": 1}}, at=f"{QUEUE}::storage"),
    Break("storage-listed", {"service::extensions": ["health_check"]}, at=f"{QUEUE}::storage"),
    Break("storage-listed", {f"{QUEUE}::storage": "file_storage/other"}),
    Break("storage-fsync", {f"{STORAGE}::fsync": False}),
    Break("storage-fsync", {f"{STORAGE}::fsync": GONE}),
    Break("storage-recreate", {f"{STORAGE}::recreate": True}),
    Break("storage-compaction", {f"{STORAGE}::compaction::on_start": False}, at=f"{STORAGE}::compaction"),
    Break("storage-compaction", {f"{STORAGE}::compaction::on_rebound": GONE}, at=f"{STORAGE}::compaction"),
    Break("storage-compaction", {f"{STORAGE}::compaction::directory": "/tmp"}, at=f"{STORAGE}::compaction"),
    Break("storage-folder", {f"{ARCHIVE}::path": "/var/lib/otelcol/audit-queue/a"}, at=f"{STORAGE}::directory"),
    Break("queue-sizer", {f"{QUEUE}::sizer": GONE}),
    Break("queue-sizer", {f"{QUEUE}::sizer": "items"}),
    Break("queue-size", {f"{QUEUE}::queue_size": GONE}),
    Break("queue-size", {f"{QUEUE}::queue_size": "1GiB"}),
    Break("queue-size", {f"{QUEUE}::queue_size": 0}),
    Break("queue-overflow", {f"{QUEUE}::block_on_overflow": True}),
    Break("queue-wait", {f"{QUEUE}::wait_for_result": True}),
    Break("queue-batch", {f"{QUEUE}::batch": {}}),
    Break("queue-consumers", {f"{QUEUE}::num_consumers": GONE}),
    Break("queue-consumers", {f"{QUEUE}::num_consumers": 5}),
    Break("retry-enabled", {f"{RETRY}::enabled": False}),
    Break("retry-forever", {f"{RETRY}::max_elapsed_time": "300s"}),
    Break("retry-forever", {f"{RETRY}::max_elapsed_time": GONE}),
    Break("retry-forever", {RETRY: GONE}, at=f"{RETRY}::max_elapsed_time"),
    Break("pass-through-retry", {f"{RETRY}::enabled": True}, of="pass-through"),
    Break("pass-through-retry", {f"{RETRY}::enabled": GONE}, of="pass-through"),
    Break(
        "pass-through-retry",
        {"exporters::awss3/audit::sending_queue": GONE},
        of="s3",
        at="exporters::awss3/audit::retry_on_failure::enabled",
    ),
    Break("kafka-acks", {"exporters::kafka/audit::producer::required_acks": 1}, of="kafka"),
    Break("kafka-acks", {"exporters::kafka/audit::producer::required_acks": GONE}, of="kafka"),
    Break("kafka-topic", {"exporters::kafka/audit::producer::allow_auto_topic_creation": GONE}, of="kafka"),
    Break("kafka-order", {"exporters::kafka/audit::partition_logs_by_resource_attributes": False}, of="kafka"),
    Break("s3-key", {"exporters::awss3/audit::s3uploader::unique_key_func_name": GONE}, of="s3"),
    Break("retry-forever", {"exporters::kafka/audit::retry_on_failure::max_elapsed_time": "5m"}, of="kafka"),
    Break("queue-storage", {"exporters::awss3/audit::sending_queue::storage": GONE}, of="s3"),
    Break("archive-rotation", {f"{ARCHIVE}::rotation": GONE}),
    Break("archive-backups", {f"{ARCHIVE}::rotation::max_backups": GONE}),
    Break("archive-backups", {f"{ARCHIVE}::rotation::max_backups": 100}),
    Break("archive-backups", {"exporters::file/unauthenticated::rotation::max_backups": GONE}, of="tls"),
    Break("archive-days", {f"{ARCHIVE}::rotation::max_days": 30}),
    Break("archive-group-by", {f"{ARCHIVE}::group_by": {"enabled": True}}),
    Break("archive-form", {f"{ARCHIVE}::format": "proto"}, at=ARCHIVE),
    Break("archive-form", {f"{ARCHIVE}::compression": "zstd"}, at=ARCHIVE),
    Break("sample-audit-first", {f"{SAMPLING}::policies::0::type": "always_sample"}, at=f"{SAMPLING}::policies::0"),
    Break(
        "sample-audit-first",
        {f"{SAMPLING}::policies::0::ottl_condition::span": ['span.attributes["audit.record.id"] != nil']},
        at=f"{SAMPLING}::policies::0",
    ),
    Break("sample-audit-first", {f"{SAMPLING}::policies": []}, at=f"{SAMPLING}::policies::0"),
    Break("sample-drop", {f"{SAMPLING}::policies::2": DROP}),
    Break(
        "sample-drop",
        {f"{SAMPLING}::policies::2": {"type": "and", "and": {"and_sub_policy": [DROP]}}},
        at=f"{SAMPLING}::policies::2::and::and_sub_policy::0",
    ),
    Break(
        "sample-invert",
        {f"{SAMPLING}::policies::2": {"type": "string_attribute", "string_attribute": {"invert_match": True}}},
        at=f"{SAMPLING}::policies::2::string_attribute::invert_match",
    ),
    Break("sample-late", {f"{SAMPLING}::decision_cache::sampled_cache_size": 50_000}),
    Break(
        "sample-late",
        {f"{SAMPLING}::decision_cache": GONE},
        at=f"{SAMPLING}::decision_cache::sampled_cache_size",
    ),
    Break("sample-shutdown", {f"{SAMPLING}::drop_pending_traces_on_shutdown": True}),
    Break("sample-size", {f"{SAMPLING}::maximum_trace_size_bytes": 1_000_000}),
    Break(
        "trace-sampler",
        {f"{PIPELINES}::traces::processors": ["memory_limiter", "probabilistic_sampler"]},
        at=f"{PIPELINES}::traces::processors::probabilistic_sampler",
    ),
    Break(
        "rates-before-sampling",
        {f"{PIPELINES}::traces/sampled::exporters": ["otlp_grpc/traces", "span_metrics"]},
        at=f"{PIPELINES}::traces/sampled::exporters::span_metrics",
    ),
    Break(
        "rates-before-sampling",
        {
            "connectors::forward/later": {},
            f"{PIPELINES}::traces/sampled::exporters": ["forward/later"],
            f"{PIPELINES}::traces/later": {"receivers": ["forward/later"], "exporters": ["service_graph"]},
        },
        at=f"{PIPELINES}::traces/later::exporters::service_graph",
    ),
    Break("own-logs-sampling", {"service::telemetry::logs::sampling::enabled": True}),
    Break(
        "own-logs-sampling",
        {"service::telemetry::logs::sampling": GONE},
        at="service::telemetry::logs::sampling::enabled",
    ),
    Break("own-logs-level", {"service::telemetry::logs::level": "error"}),
    Break("own-metrics", {"service::telemetry::metrics::level": "none"}, at="service::telemetry::metrics"),
    Break("own-metrics", {"service::telemetry::metrics::readers": []}, at="service::telemetry::metrics"),
    Break("manifest", {"exporters::kafka": {}}),
    Break("manifest", {"extensions::zpages": {}}),
]  # fmt: skip
