"""docs/scale.md lists the rights that `auditrace migrate --grants` gives, for those who grant by hand."""

import re
from pathlib import Path

from service.store.postgres.rights import FUNCTIONS, NOT_FOR_READERS, TABLES

DOCUMENT = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")
ROW = re.compile(r"^\| `([a-z_]+)` \| (SELECT[A-Z, ]*) \| ([^|]+) \| (SELECT|–) \|$", re.MULTILINE)


def test_the_document_has_each_table_with_its_rights() -> None:
    """A table has one row: what the service does, the columns that it updates, and whether readers read it."""
    rows = [
        (name, does, re.findall(r"`(\w+)`", columns), reads) for name, does, columns, reads in ROW.findall(DOCUMENT)
    ]
    assert rows == [
        (name, ", ".join(["SELECT", *does.split()]), columns.split(), "–" if name in NOT_FOR_READERS else "SELECT")
        for name, (does, columns) in TABLES.items()
    ]


def test_the_document_names_the_functions() -> None:
    """Without EXECUTE on them, the service cannot start."""
    (named,) = re.findall(r"^The service also has EXECUTE on (.*);", DOCUMENT, re.MULTILINE)
    assert re.findall(r"`([^`]+)`", named) == list(FUNCTIONS)
