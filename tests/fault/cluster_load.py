"""Clients of a cluster, who keep its workers busy."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.load import Load, Post

RUNS_ON_THEIR_WAY = 12
"""More runs than that are not asked for, so that the workers are busy and not buried."""


class ClusterLoad(Load):
    """Clients that create jobs, and run every third while few runs are on their way.

    Args:
        urls: of the servers.
        key: an API key.
        executions: the file in which each execution leaves a line.
        on_their_way: how many runs are.
    """

    def __init__(self, urls: Sequence[str], key: str, executions: Path, on_their_way: Callable[[], int]) -> None:
        super().__init__(urls, key)
        self._executions = executions
        self._on_their_way = on_their_way

    def turn(self, post: Post, number: int) -> None:
        """Create a job, or one that leaves a line in the file and is run."""
        if number % 3 == 0 and self._on_their_way() < RUNS_ON_THEIR_WAY:
            body = {"template": "note", "parameters": {"file": str(self._executions)}}
            self.run(post, post("/v1/jobs", number, body), number)
        else:
            post("/v1/jobs", number, {"template": "greet", "parameters": {"name": str(number)}})
