"""Rules of exporters whose word that they have a record depends on their settings: Kafka and S3."""

from collections.abc import Iterator

from deploy.otelcol.lint.configuration import Configuration, Value, kind_of, mapping
from deploy.otelcol.lint.rule import Rule


def _kafka(config: Configuration) -> Iterator[tuple[str, dict[str, Value]]]:
    for name, settings in config.audit_exporters():
        if kind_of(name) == "kafka":
            yield f"exporters::{name}", settings


def _kafka_acks(config: Configuration) -> Iterator[str]:
    for place, settings in _kafka(config):
        if mapping(settings.get("producer")).get("required_acks") not in {"all", -1}:
            yield f"{place}::producer::required_acks"


def _kafka_topic(config: Configuration) -> Iterator[str]:
    for place, settings in _kafka(config):
        if mapping(settings.get("producer")).get("allow_auto_topic_creation", True) is not False:
            yield f"{place}::producer::allow_auto_topic_creation"


def _kafka_order(config: Configuration) -> Iterator[str]:
    for place, settings in _kafka(config):
        if settings.get("partition_logs_by_resource_attributes") is not True:
            yield f"{place}::partition_logs_by_resource_attributes"


def _s3_key(config: Configuration) -> Iterator[str]:
    for name, settings in config.audit_exporters():
        if kind_of(name) == "awss3" and mapping(settings.get("s3uploader")).get("unique_key_func_name") != "uuidv7":
            yield f"exporters::{name}::s3uploader::unique_key_func_name"


RULES = (
    Rule(
        "kafka-acks",
        _kafka_acks,
        "with fewer acknowledgements the loss of one broker loses records that were taken from the queue",
        "set producer::required_acks: all",
    ),
    Rule(
        "kafka-topic",
        _kafka_topic,
        "a topic made on the fly has the cluster's default replication and retention",
        "set producer::allow_auto_topic_creation: false",
    ),
    Rule(
        "kafka-order",
        _kafka_order,
        "the records of one stream would be spread over partitions",
        "set partition_logs_by_resource_attributes: true",
    ),
    Rule(
        "s3-key",
        _s3_key,
        "the default is a random number, and two objects with one key are one object",
        "set s3uploader::unique_key_func_name: uuidv7",
    ),
)
