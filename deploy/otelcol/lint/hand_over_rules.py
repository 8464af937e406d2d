"""Rules of the exporters whose acknowledgement is only reliable with certain settings: Kafka and S3."""

from collections.abc import Callable, Iterator

from deploy.otelcol.lint.configuration import Configuration, kind_of, mapping
from deploy.otelcol.lint.rule import Rule, Settings, setting


def _of_kind(kind: str) -> Callable[[Configuration], Iterator[tuple[str, Settings]]]:
    def exporters(config: Configuration) -> Iterator[tuple[str, Settings]]:
        for name, settings in config.audit_exporters():
            if kind_of(name) == kind:
                yield f"exporters::{name}", settings

    return exporters


_KAFKA = _of_kind("kafka")


def _producer(kafka: Settings) -> Settings:
    return mapping(kafka.get("producer"))


RULES = (
    Rule(
        "kafka-acks",
        setting(
            _KAFKA,
            "producer::required_acks",
            lambda kafka: _producer(kafka).get("required_acks") not in {"all", -1},
        ),
        "with fewer acknowledgements the loss of one broker loses records that are no longer in the queue",
        "set producer::required_acks: all",
    ),
    Rule(
        "kafka-topic",
        setting(
            _KAFKA,
            "producer::allow_auto_topic_creation",
            lambda kafka: _producer(kafka).get("allow_auto_topic_creation", True) is not False,
        ),
        "an automatically created topic has the cluster's default replication and retention",
        "set producer::allow_auto_topic_creation: false",
    ),
    Rule(
        "kafka-order",
        setting(
            _KAFKA,
            "partition_logs_by_resource_attributes",
            lambda kafka: kafka.get("partition_logs_by_resource_attributes") is not True,
        ),
        "the records of one stream would be spread over partitions",
        "set partition_logs_by_resource_attributes: true",
    ),
    Rule(
        "s3-key",
        setting(
            _of_kind("awss3"),
            "s3uploader::unique_key_func_name",
            lambda s3: mapping(s3.get("s3uploader")).get("unique_key_func_name") != "uuidv7",
        ),
        "the default is a random number, and an object replaces another one with the same key",
        "set s3uploader::unique_key_func_name: uuidv7",
    ),
)
