"""Reads any database without opening its ledger: whether it is empty, its keys, checkpoints and records."""

from collections.abc import Iterator, Sequence

from service.ports import LastCheckpoint, RefusedStream, RegisteredKey, StoredConfiguration
from service.secrets import DeploymentSecret
from service.store.anchors import last_stored
from service.store.configurations import last_configuration
from service.store.queries import Execute
from service.store.signing_keys import registered_keys
from telemetry.audit.verify import Found, SourcePlace
from telemetry.audit.verify.read.otlp_stored import found_in_row


def is_empty(execute: Execute) -> bool:
    """Tell whether nothing was committed and no key registered; only then may keys be made for the database."""
    tables = (("audit_checkpoints", "has_signed"), ("audit_streams", "has_streams"))
    return not any(_is_true(execute, "has_table", table) and _is_true(execute, name) for table, name in tables)


def keys_of(execute: Execute, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
    """Return all keys as `registered_keys` does; none if the database was not migrated yet."""
    return registered_keys(execute, secret) if _is_true(execute, "has_table", "signing_keys") else ()


def configuration_of(execute: Execute, source: str, host: str) -> StoredConfiguration | None:
    """Return the newest configuration of a source on a host; None also if the database was not migrated yet."""
    has_table = _is_true(execute, "has_table", "configurations")
    return last_configuration(execute, source=source, host=host) if has_table else None


def last_and_refused(execute: Execute) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
    """Return the last checkpoint (None before the first) and the refused streams."""
    last = last_stored(execute)
    refused = [RefusedStream(*row) for row in execute("refused_streams", {})]
    return None if last is None else LastCheckpoint(last.number, last.observed_ns), refused


def records_in(execute: Execute, source: str) -> Iterator[Found]:
    """Yield every record as it would be delivered, and also as the API shows it where that differs.

    Args:
        execute: reads in the open snapshot.
        source: the name of the database in the places of records. The number beside it is the record's position in a
            SQLite file; on PostgreSQL it counts the records in the order of time.
    """
    for count, (position, body, otlp, resource, _) in enumerate(execute("all_records", {}), start=1):
        yield from found_in_row(body, otlp, resource, SourcePlace(source, position or count))


def _is_true(execute: Execute, name: str, table: str = "") -> bool:
    ((is_true,),) = execute(name, {"name": table})
    return bool(is_true)
