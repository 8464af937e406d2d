"""Rules of what lies between an acknowledged record and the store: queue, storage, retries."""

import re
from collections.abc import Iterator

from deploy.otelcol.lint.configuration import QUEUEING, Configuration, Value, has_queue, kind_of, mapping, texts
from deploy.otelcol.lint.rule import Rule

_ZERO = re.compile(r"(0[a-zµ]*)+")
# Items under way when the collector is killed are deleted and put back one by one at the next start.
_MOST_CONSUMERS = 4


def _storage(config: Configuration) -> Iterator[str]:
    for place, queue in config.queues():
        if not queue.get("storage"):
            yield f"{place}::storage"


def _storage_listed(config: Configuration) -> Iterator[str]:
    listed = texts(config.at("service", "extensions"))
    defined = mapping(config.at("extensions"))
    for place, queue in config.queues():
        storage = queue.get("storage")
        if storage and (str(storage) not in defined or str(storage) not in listed):
            yield f"{place}::storage"


def _used_storages(config: Configuration) -> Iterator[tuple[str, dict[str, Value]]]:
    used = {str(queue.get("storage")) for _, queue in config.queues()}
    for name, settings in config.components_of("extensions", "file_storage"):
        if name in used:
            yield name, settings


def _fsync(config: Configuration) -> Iterator[str]:
    for name, settings in _used_storages(config):
        if settings.get("fsync") is not True:
            yield f"extensions::{name}::fsync"


def _recreate(config: Configuration) -> Iterator[str]:
    for name, settings in _used_storages(config):
        if settings.get("recreate"):
            yield f"extensions::{name}::recreate"


def _compaction(config: Configuration) -> Iterator[str]:
    for name, settings in _used_storages(config):
        compaction = mapping(settings.get("compaction"))
        is_on = compaction.get("on_start") is True and compaction.get("on_rebound") is True
        if not is_on or compaction.get("directory") != settings.get("directory"):
            yield f"extensions::{name}::compaction"


def _own_folder(config: Configuration) -> Iterator[str]:
    folders = [
        str(settings.get("path")).rpartition("/")[0] for _, settings in config.components_of("exporters", "file")
    ]
    for name, settings in _used_storages(config):
        if str(settings.get("directory")).rstrip("/") in folders:
            yield f"extensions::{name}::directory"


def _sizer(config: Configuration) -> Iterator[str]:
    for place, queue in config.queues():
        if queue.get("sizer") != "bytes":
            yield f"{place}::sizer"


def _size(config: Configuration) -> Iterator[str]:
    for place, queue in config.queues():
        size = queue.get("queue_size")
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
            yield f"{place}::queue_size"


def _overflow(config: Configuration) -> Iterator[str]:
    for place, queue in config.queues():
        if queue.get("block_on_overflow", False) is not False:
            yield f"{place}::block_on_overflow"


def _wait(config: Configuration) -> Iterator[str]:
    for place, queue in config.queues():
        if queue.get("wait_for_result"):
            yield f"{place}::wait_for_result"


def _batch(config: Configuration) -> Iterator[str]:
    for place, queue in config.queues():
        if "batch" in queue:
            yield f"{place}::batch"


def _consumers(config: Configuration) -> Iterator[str]:
    for place, queue in config.queues():
        consumers = queue.get("num_consumers", 10)
        if not isinstance(consumers, int) or not 1 <= consumers <= _MOST_CONSUMERS:
            yield f"{place}::num_consumers"


def _retry(config: Configuration) -> Iterator[str]:
    for name, settings in config.audit_exporters():
        if has_queue(name, settings) and mapping(settings.get("retry_on_failure")).get("enabled", True) is not True:
            yield f"exporters::{name}::retry_on_failure::enabled"


def _forever(config: Configuration) -> Iterator[str]:
    for name, settings in config.audit_exporters():
        retry = mapping(settings.get("retry_on_failure"))
        if has_queue(name, settings) and not _ZERO.fullmatch(str(retry.get("max_elapsed_time", "300s"))):
            yield f"exporters::{name}::retry_on_failure::max_elapsed_time"


def _pass_through(config: Configuration) -> Iterator[str]:
    for name, settings in config.audit_exporters():
        retries = mapping(settings.get("retry_on_failure")).get("enabled", True) is not False
        if kind_of(name) in QUEUEING and not has_queue(name, settings) and retries:
            yield f"exporters::{name}::retry_on_failure::enabled"


RULES = (
    Rule(
        "queue-storage",
        _storage,
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
        _fsync,
        "without it an acknowledged record is lost when the machine loses power",
        "set fsync: true",
    ),
    Rule(
        "storage-recreate",
        _recreate,
        "it sets a damaged queue aside and goes on without what is in it",
        "leave recreate out, so that damage stops the collector and the sender holds the records",
    ),
    Rule(
        "storage-compaction",
        _compaction,
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
        _sizer,
        "a limit in requests says nothing about the size of the volume",
        "set sizer: bytes",
    ),
    Rule(
        "queue-size",
        _size,
        "the default was made for a count of requests, not for bytes",
        "set queue_size to a number of bytes below half of the volume",
    ),
    Rule(
        "queue-overflow",
        _overflow,
        "a sender that waits for room runs into its own deadline and sends again while the first request still waits",
        "set block_on_overflow: false",
    ),
    Rule(
        "queue-wait",
        _wait,
        "the collector refuses it together with storage, and without storage a restart loses the records",
        "leave wait_for_result out; deploy/otelcol/pass-through.yaml waits for the store",
    ),
    Rule(
        "queue-batch",
        _batch,
        "one record that the store refuses for good takes the whole batch with it",
        "leave batch out of the queue of an audit exporter",
    ),
    Rule(
        "queue-consumers",
        _consumers,
        "each request under way is in danger when the collector is killed while it starts, and overtakes others",
        f"set num_consumers to 1 or 2, {_MOST_CONSUMERS} at most; the default is 10",
    ),
    Rule(
        "retry-enabled",
        _retry,
        "the first failure, and every SIGTERM while the store is away, deletes queued records",
        "set retry_on_failure::enabled: true",
    ),
    Rule(
        "retry-forever",
        _forever,
        "after that time the record is deleted, though it is on disk; the default is five minutes",
        "set max_elapsed_time: 0s, which means for ever",
    ),
    Rule(
        "pass-through-retry",
        _pass_through,
        "without a queue a retry holds the sender's request open until the sender gives up and sends it again",
        "set retry_on_failure::enabled: false where the queue is off",
    ),
)
