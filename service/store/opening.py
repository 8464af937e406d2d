"""What is read from any database without opening its ledger: is it empty, which keys sign, what is in it."""

from collections.abc import Iterator, Sequence

from service.ports import LastCheckpoint, RefusedStream, RegisteredKey
from service.secrets import DeploymentSecret
from service.store.anchors import last_stored
from service.store.queries import Execute
from service.store.signing_keys import registered_keys
from telemetry.audit.verify import Found, SourcePlace
from telemetry.audit.verify.read.otlp_stored import found_in_row


def is_empty(execute: Execute) -> bool:
    """True while nothing was committed to it, and no key registered: only then may keys be made for it."""
    tables = (("audit_checkpoints", "has_signed"), ("audit_streams", "has_streams"))
    return not any(_is_true(execute, "has_table", table) and _is_true(execute, name) for table, name in tables)


def keys_of(execute: Execute, secret: DeploymentSecret) -> Sequence[RegisteredKey]:
    """Return all keys, as `registered_keys` does; none of a database that was not migrated yet."""
    return registered_keys(execute, secret) if _is_true(execute, "has_table", "signing_keys") else ()


def last_and_refused(execute: Execute) -> tuple[LastCheckpoint | None, Sequence[RefusedStream]]:
    """Return the last checkpoint, None before the first, and the streams that none signs over."""
    last = last_stored(execute)
    refused = [RefusedStream(*row) for row in execute("refused_streams", {})]
    return None if last is None else LastCheckpoint(last.number, last.observed_ns), refused


def records_in(execute: Execute, source: str) -> Iterator[Found]:
    """Yield what would be delivered of every record, and what is shown of it where that differs.

    Args:
        execute: reads in the snapshot that is open.
        source: how places name the database; beside it, they name the position of a record in it, by the order of
            positions in a file, else of time.
    """
    for count, (position, body, otlp, resource, _) in enumerate(execute("all_records", {}), start=1):
        yield from found_in_row(body, otlp, resource, SourcePlace(source, position or count))


def _is_true(execute: Execute, name: str, table: str = "") -> bool:
    ((is_true,),) = execute(name, {"name": table})
    return bool(is_true)
