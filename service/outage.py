"""Logs a failure of a part of the process once, and its end once, instead of a line for each attempt."""

import logging
from collections.abc import Callable

from service.errors import AuditraceError, TryLaterError


class Outage:
    """Logs when something begins to fail, when it fails for another reason, and when it works again.

    Only one thread may use it; any thread may read `problem`.
    """

    def __init__(self, log: logging.Logger, fails: str, works_again: str, level: int = logging.ERROR) -> None:
        """Begin without a problem, and log nothing.

        Args:
            log: the logger of the lines.
            fails: the beginning of the line about a problem.
            works_again: the line about its end.
            level: the level of the line about a problem. The line about its end is a warning, so that a reader who sees
                errors and warnings sees both.
        """
        self._log = log
        self._fails = fails
        self._works_again = works_again
        self._level = level
        self.problem: str | None = None
        """The present problem; None while it works."""

    def attempt(self, *steps: Callable[[], object]) -> None:
        """Take the steps, each also when one before it failed, and note how that went: the first problem counts."""
        problems: list[tuple[str, Exception | None]] = []
        for step in steps:
            try:
                step()
            except TryLaterError as error:
                problems.append((error.detail, None))
            except (AuditraceError, OSError) as error:
                problems.append((str(error), None))
            except Exception as error:  # noqa: BLE001 - a thread that died would leave its work undone in silence
                problems.append((f"unexpected {type(error).__name__}: {error}", error))
        self.note(*problems[0] if problems else (None, None))

    def note(self, problem: str | None, unexpected: Exception | None = None) -> None:
        """Note the result of the last attempt: the problem, or None when it worked.

        When the problem is new, it is logged, with the traceback of an `unexpected` error.
        """
        if problem is not None and problem != self.problem:
            level = self._level if unexpected is None else logging.ERROR
            self._log.log(level, "%s: %s", self._fails, problem, exc_info=unexpected)
        elif problem is None and self.problem is not None:
            self._log.warning("%s", self._works_again)
        self.problem = problem
