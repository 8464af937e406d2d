"""Rules of the path from the acknowledgement of a record to the store: queue, storage, retries."""

import re
from collections.abc import Iterator

from deploy.otelcol.lint.configuration import QUEUEING, Configuration, Value, has_queue, kind_of, mapping, texts
from deploy.otelcol.lint.rule import Rule, Settings, setting

_ZERO = re.compile(r"(0[a-zµ]*)+")
# After a kill, the next start takes the requests in progress from the queue and adds them again, one by one.
_MOST_CONSUMERS = 4


def _storage_listed(config: Configuration) -> Iterator[str]:
    listed = texts(config.at("service", "extensions"))
    defined = mapping(config.at("extensions"))
    for place, queue in config.queues():
        storage = queue.get("storage")
        if storage and (str(storage) not in defined or str(storage) not in listed):
            yield f"{place}::storage"


def _used_storages(config: Configuration) -> Iterator[tuple[str, Settings]]:
    used = {str(queue.get("storage")) for _, queue in config.queues()}
    for name, settings in config.components_of("extensions", "file_storage"):
        if name in used:
            yield f"extensions::{name}", settings


def _own_folder(config: Configuration) -> Iterator[str]:
    folders = [
        str(settings.get("path")).rpartition("/")[0] for _, settings in config.components_of("exporters", "file")
    ]
    for place, settings in _used_storages(config):
        if str(settings.get("directory")).rstrip("/") in folders:
            yield f"{place}::directory"


def _compacts(storage: Settings) -> bool:
    compaction = mapping(storage.get("compaction"))
    is_on = compaction.get("on_start") is True and compaction.get("on_rebound") is True
    return is_on and compaction.get("directory") == storage.get("directory")


def _is_size(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_few(consumers: Value) -> bool:
    return isinstance(consumers, int) and 1 <= consumers <= _MOST_CONSUMERS


def _with_queue(config: Configuration) -> Iterator[tuple[str, Settings]]:
    for name, settings in config.audit_exporters():
        if has_queue(name, settings):
            yield f"exporters::{name}", settings


def _without_queue(config: Configuration) -> Iterator[tuple[str, Settings]]:
    for name, settings in config.audit_exporters():
        if kind_of(name) in QUEUEING and not has_queue(name, settings):
            yield f"exporters::{name}", settings


def _retry(exporter: Settings) -> Settings:
    return mapping(exporter.get("retry_on_failure"))


RULES = (
    Rule(
        "queue-storage",
        setting(Configuration.queues, "storage", lambda queue: not queue.get("storage")),
        "a queue in memory acknowledges records and loses them when the process ends",
        "name a file_storage extension as storage, or switch the queue off",
    ),
    Rule(
        "storage-listed",
        _storage_listed,
        "an extension that is not listed does not run, so the queue has no storage",
        "define the storage under extensions and list it under service::extensions",
    ),
    Rule(
        "storage-fsync",
        setting(_used_storages, "fsync", lambda storage: storage.get("fsync") is not True),
        "without it an acknowledged record can be lost when the machine loses power",
        "set fsync: true",
    ),
    Rule(
        "storage-recreate",
        setting(_used_storages, "recreate", lambda storage: storage.get("recreate")),
        "it sets a damaged queue aside and continues without its records",
        "remove recreate, so that damage stops the collector and the sender keeps the records",
    ),
    Rule(
        "storage-compaction",
        setting(_used_storages, "compaction", lambda storage: not _compacts(storage)),
        "the file never shrinks by itself, and a compacted copy on another file system cannot replace it",
        "set on_start and on_rebound, and the storage's directory as directory",
    ),
    Rule(
        "storage-folder",
        _own_folder,
        "another writer can fill the volume, and a full volume corrupts the state of the queue",
        "give the storage its own folder and its own volume",
    ),
    Rule(
        "queue-sizer",
        setting(Configuration.queues, "sizer", lambda queue: queue.get("sizer") != "bytes"),
        "a limit in requests does not limit the bytes on the volume",
        "set sizer: bytes",
    ),
    Rule(
        "queue-size",
        setting(Configuration.queues, "queue_size", lambda queue: not _is_size(queue.get("queue_size"))),
        "the default is meant for a number of requests, not for bytes",
        "set queue_size to a number of bytes below half of the volume",
    ),
    Rule(
        "queue-overflow",
        setting(
            Configuration.queues, "block_on_overflow", lambda queue: queue.get("block_on_overflow", False) is not False
        ),
        "a sender that waits for space reaches its timeout and sends again while the first request still waits",
        "set block_on_overflow: false",
    ),
    Rule(
        "queue-wait",
        setting(Configuration.queues, "wait_for_result", lambda queue: queue.get("wait_for_result")),
        "the collector refuses it together with storage, and without storage a restart loses the records",
        "remove wait_for_result; deploy/otelcol/pass-through.yaml waits for the store",
    ),
    Rule(
        "queue-batch",
        setting(Configuration.queues, "batch", lambda queue: "batch" in queue),
        "when the store refuses one record permanently, the whole batch is deleted",
        "remove batch from the queue of an audit exporter",
    ),
    Rule(
        "queue-consumers",
        setting(Configuration.queues, "num_consumers", lambda queue: not _is_few(queue.get("num_consumers", 10))),
        "each request in progress can be lost when the collector is killed during its start, and can overtake others",
        f"set num_consumers to 1 or 2, at most {_MOST_CONSUMERS}; the default is 10",
    ),
    Rule(
        "retry-enabled",
        setting(
            _with_queue,
            "retry_on_failure::enabled",
            lambda exporter: _retry(exporter).get("enabled", True) is not True,
        ),
        "the first failure, and every SIGTERM while the store is down, deletes queued records",
        "set retry_on_failure::enabled: true",
    ),
    Rule(
        "retry-forever",
        setting(
            _with_queue,
            "retry_on_failure::max_elapsed_time",
            lambda exporter: not _ZERO.fullmatch(str(_retry(exporter).get("max_elapsed_time", "300s"))),
        ),
        "after that time the record is deleted, although it is on disk; the default is five minutes",
        "set max_elapsed_time: 0s, which means no limit",
    ),
    Rule(
        "pass-through-retry",
        setting(
            _without_queue,
            "retry_on_failure::enabled",
            lambda exporter: _retry(exporter).get("enabled", True) is not False,
        ),
        "without a queue a retry holds the sender's request open until the sender's timeout, and it sends again",
        "set retry_on_failure::enabled: false where the queue is off",
    ),
)
