"""How thorough the tests are: `make test-quick` sets one variable, long runs another, and `make test` none."""

import os
from typing import Final

IS_LONG: Final = bool(os.environ.get("AUDITRACE_TEST_LONG"))  # noqa: TID251 - of the test run
"""Minutes and random examples instead of seconds and always the same ones."""
IS_QUICK: Final = bool(os.environ.get("AUDITRACE_TEST_QUICK"))  # noqa: TID251
"""SQLite alone, and a few examples of each property."""


def examples(usual: int, long: int | None = None) -> int:
    """Return how many examples a property test tries: a tenth of the usual number when it is to be quick."""
    if IS_LONG and long is not None:
        return long
    return max(1, usual // 10) if IS_QUICK else usual
