"""The stored configurations, on every database: the newest ones, and those whose records are still to be offered."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from service.ports import PendingOffer, StoredConfiguration
from service.store.queries import Execute, one

_CONDITIONS: Final = {
    "source": "source = :source",
    "host": "host = :host",
    "delivers": "delivers = :delivers",
    "below": "number < :below",
}


def stored_configuration(columns: Sequence[Any]) -> StoredConfiguration:
    """Return the configuration of a row; its columns are in the order of the members."""
    return StoredConfiguration(**dict(zip(StoredConfiguration.__struct_fields__, columns, strict=True)))


def last_configuration(
    execute: Execute,
    *,
    source: str | None = None,
    host: str | None = None,
    delivers: bool = False,
    below: int | None = None,
) -> StoredConfiguration | None:
    """Return the newest configuration of this source and host, as far as they are given; None if there is none.

    With `delivers`, the newest one of those whose processes deliver records; with `below`, of those with lower numbers.
    """
    values: dict[str, object] = {"source": source, "host": host, "delivers": 1 if delivers else None, "below": below}
    conditions = [condition for name, condition in _CONDITIONS.items() if values[name] is not None]
    row = one(execute("configuration", values, conditions))
    return None if row is None else stored_configuration(row)


def put_configuration(execute: Execute, stored: StoredConfiguration) -> None:
    """Store a configuration behind the newest one."""
    execute("put_configuration", msgspec.structs.asdict(stored))


def pending_offers(execute: Execute) -> Sequence[PendingOffer]:
    """Return the configurations whose records were not offered yet to the sink before, oldest first."""
    return [
        PendingOffer(number, document, stream_id, record_number, stored_configuration(known))
        for number, document, stream_id, record_number, *known in execute("pending_offers", {})
    ]
