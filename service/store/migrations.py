"""The numbered steps that make the schema of a database, and which of them the previous release accepts.

Steps only go forward. A step named `0003_words.addition.sql` adds something that an older version can ignore: that
version keeps working. Any other step is a new version of the schema, on which an older version refuses to work.
"""

import re
from collections.abc import Collection, Sequence
from importlib.resources import files
from typing import Final

import msgspec

from service.errors import SettingsError

_FILE: Final = re.compile(r"^(\d{4})_[a-z_]+(\.addition)?\.sql$")


class Migration(msgspec.Struct, frozen=True):
    """One step; the schema is the sum of all steps in order."""

    number: int
    name: str
    sql: str
    is_addition: bool


def steps_of(package: str) -> Sequence[Migration]:
    """Return every step in the folder `migrations` of a package, in order, numbered from 1 without gaps.

    Raises:
        ValueError: a file is misnamed, or a number is missing or occurs twice.
    """
    found: list[Migration] = []
    for entry in sorted(files(package).joinpath("migrations").iterdir(), key=lambda entry: entry.name):
        match = _FILE.match(entry.name)
        if match is None:
            raise ValueError(f"{entry.name} is not named like 0001_words.sql or 0001_words.addition.sql")
        found.append(Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8"), match[2] is not None))
    if [step.number for step in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations are not numbered from 1 without gaps")
    return found


def missing_of(steps: Sequence[Migration], version: int, additions: Collection[str]) -> Sequence[Migration]:
    """Return the steps that a database has not seen yet.

    Args:
        steps: all that this version knows.
        version: the number of the last step of the database that is not an addition.
        additions: the names of its additions.

    Raises:
        SettingsError: a newer version changed the schema to one that this version does not know.
    """
    if version > max(step.number for step in steps if not step.is_addition):
        raise SettingsError(["the database was written by a newer version of auditrace: upgrade this process"])
    return [step for step in steps if (step.name not in additions if step.is_addition else step.number > version)]


def require_same(steps: Sequence[Migration], version: int, additions: Collection[str]) -> None:
    """Raise unless the database has seen exactly the steps that this version knows.

    Raises:
        SettingsError: it has seen fewer steps, or also steps of a newer version.
    """
    if missing_of(steps, version, additions):
        raise SettingsError(["the schema of the database is not the one of this version: run auditrace migrate"])
    if not {step.name for step in steps}.issuperset(additions):
        raise SettingsError(["a newer version of auditrace added to the schema of the database: use that version"])
