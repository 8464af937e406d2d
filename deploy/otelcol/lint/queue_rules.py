"""Rules of what lies between an acknowledged record and the store: queue, storage, retries."""

import re
from collections.abc import Iterator

from deploy.otelcol.lint.configuration import QUEUEING, Configuration, Value, has_queue, kind_of, mapping, texts
from deploy.otelcol.lint.rule import Rule, Settings, setting

_ZERO = re.compile(r"(0[a-zµ]*)+")
# Items under way when the collector is killed are deleted and put back one by one at the next start.
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
        "a storage that is not running is none",
        "define the storage under extensions and list it under service::extensions",
    ),
    Rule(
        "storage-fsync",
        setting(_used_storages, "fsync", lambda storage: storage.get("fsync") is not True),
        "without it an acknowledged record is lost when the machine loses power",
        "set fsync: true",
    ),
    Rule(
        "storage-recreate",
        setting(_used_storages, "recreate", lambda storage: storage.get("recreate")),
        "it sets a damaged queue aside and goes on without what is in it",
        "leave recreate out, so that damage stops the collector and the sender holds the records",
    ),
    Rule(
        "storage-compaction",
        setting(_used_storages, "compaction", lambda storage: not _compacts(storage)),
        "the file never shrinks by itself, and a copy on another file system cannot be put in its place",
        "set on_start and on_rebound, with the storage's own directory",
    ),
    Rule(
        "storage-folder",
        _own_folder,
        "another writer can fill the volume, and a full volume makes the queue lose track of what it holds",
        "give the storage a folder, and a volume, of its own",
    ),
    Rule(
        "queue-sizer",
        setting(Configuration.queues, "sizer", lambda queue: queue.get("sizer") != "bytes"),
        "a limit in requests says nothing about the size of the volume",
        "set sizer: bytes",
    ),
    Rule(
        "queue-size",
        setting(Configuration.queues, "queue_size", lambda queue: not _is_size(queue.get("queue_size"))),
        "the default was made for a count of requests, not for bytes",
        "set queue_size to a number of bytes below half of the volume",
    ),
    Rule(
        "queue-overflow",
        setting(
            Configuration.queues, "block_on_overflow", lambda queue: queue.get("block_on_overflow", False) is not False
        ),
        "a sender that waits for room runs into its own deadline and sends again while the first request still waits",
        "set block_on_overflow: false",
    ),
    Rule(
        "queue-wait",
        setting(Configuration.queues, "wait_for_result", lambda queue: queue.get("wait_for_result")),
        "the collector refuses it together with storage, and without storage a restart loses the records",
        "leave wait_for_result out; deploy/otelcol/pass-through.yaml waits for the store",
    ),
    Rule(
        "queue-batch",
        setting(Configuration.queues, "batch", lambda queue: "batch" in queue),
        "one record that the store refuses for good takes the whole batch with it",
        "leave batch out of the queue of an audit exporter",
    ),
    Rule(
        "queue-consumers",
        setting(Configuration.queues, "num_consumers", lambda queue: not _is_few(queue.get("num_consumers", 10))),
        "each request under way is in danger when the collector is killed while it starts, and overtakes others",
        f"set num_consumers to 1 or 2, {_MOST_CONSUMERS} at most; the default is 10",
    ),
    Rule(
        "retry-enabled",
        setting(
            _with_queue,
            "retry_on_failure::enabled",
            lambda exporter: _retry(exporter).get("enabled", True) is not True,
        ),
        "the first failure, and every SIGTERM while the store is away, deletes queued records",
        "set retry_on_failure::enabled: true",
    ),
    Rule(
        "retry-forever",
        setting(
            _with_queue,
            "retry_on_failure::max_elapsed_time",
            lambda exporter: not _ZERO.fullmatch(str(_retry(exporter).get("max_elapsed_time", "300s"))),
        ),
        "after that time the record is deleted, though it is on disk; the default is five minutes",
        "set max_elapsed_time: 0s, which means for ever",
    ),
    Rule(
        "pass-through-retry",
        setting(
            _without_queue,
            "retry_on_failure::enabled",
            lambda exporter: _retry(exporter).get("enabled", True) is not False,
        ),
        "without a queue a retry holds the sender's request open until the sender gives up and sends it again",
        "set retry_on_failure::enabled: false where the queue is off",
    ),
)
