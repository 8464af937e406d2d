"""Logs that something fails and that it works again: one line each, not a line for each attempt."""

import logging


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

    def unexpected(self, error: Exception) -> str:
        """Note that the last attempt ended with an unexpected error, and return the problem as text.

        The traceback is logged the first time.
        """
        problem = f"unexpected {type(error).__name__}: {error}"
        if problem != self.problem:
            self._log.error("%s: %s", self._fails, problem, exc_info=error)
        self.problem = problem
        return problem

    def note(self, problem: str | None) -> None:
        """Note the result of the last attempt: the problem, or None when it worked."""
        if problem is not None and problem != self.problem:
            self._log.log(self._level, "%s: %s", self._fails, problem)
        elif problem is None and self.problem is not None:
            self._log.warning("%s", self._works_again)
        self.problem = problem
