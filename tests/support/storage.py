"""What tenants store, measured by reading all of it: what the counts of the database must be."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

MEASURED: Final = (
    "SELECT tenant_id, body, otlp FROM audit_records WHERE actor_id NOT IN ('anonymous', 'auditrace')",
    "SELECT tenant_id, payload FROM job_inputs JOIN jobs ON jobs.job_id = job_inputs.job_id",
    "SELECT tenant_id, payload FROM job_artifacts JOIN jobs ON jobs.job_id = job_artifacts.job_id",
)
COUNTED: Final = "SELECT tenant_id, CAST(sum(bytes) AS bigint) FROM tenant_storage GROUP BY tenant_id"

Rows = Callable[[str], Sequence[tuple[Any, ...]]]


def measured(rows: Rows) -> Mapping[str, int]:
    """Return how many bytes each tenant stores."""
    found: Counter[str] = Counter()
    for sql in MEASURED:
        for tenant, *stored in rows(sql):
            found[tenant] += sum(len(each.encode() if isinstance(each, str) else each) for each in stored)
    return found


def counted(rows: Rows) -> Mapping[str, int]:
    """Return what the database counted."""
    return dict(rows(COUNTED))
