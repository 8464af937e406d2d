"""Clients of a cluster: they ask whichever server answers, again where none did, and keep every receipt."""

import hashlib
import itertools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

RUNS_ON_THEIR_WAY = 12
"""More runs than that are not asked for, so that the workers are busy and not buried."""


class ClusterLoad:
    """Clients that create and run jobs until told to stop.

    A request that gets no answer is repeated under the same Idempotency-Key, at another server; only what was answered
    with a receipt counts as acknowledged.

    Args:
        urls: of the servers.
        key: an API key.
        executions: the file in which each execution leaves a line.
        on_their_way: how many runs are.
        clients: how many there are.
    """

    def __init__(
        self, urls: Sequence[str], key: str, executions: Path, on_their_way: Callable[[], int], clients: int = 4
    ) -> None:
        self.receipts: list[Mapping[str, Any]] = []
        self.unanswered = 0
        self.refused = 0
        self.failures: list[BaseException] = []
        self._urls = urls
        self._key = key
        self._executions = executions
        self._on_their_way = on_their_way
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=[n], daemon=True) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if error is None:
            self.require_sound()

    def require_sound(self) -> None:
        """Raise what a client stumbled over."""
        for failure in self.failures:
            raise failure

    def _work(self, seed: int) -> None:
        draw = random.Random(seed)
        try:
            with httpx.Client(headers={"Authorization": f"Bearer {self._key}"}, timeout=30) as client:
                while not self._stopping.is_set():
                    number = next(self._numbers)
                    if number % 3 == 0 and self._on_their_way() < RUNS_ON_THEIR_WAY:
                        self._run(client, draw, number)
                    else:
                        body = {"template": "greet", "parameters": {"name": str(number)}}
                        self._post(client, draw, "/v1/jobs", number, body)
        except BaseException as error:  # noqa: BLE001 - raised by who waits for the load
            self.failures.append(error)

    def _run(self, client: httpx.Client, draw: random.Random, number: int) -> None:
        body = {"template": "note", "parameters": {"file": str(self._executions)}}
        job = self._post(client, draw, "/v1/jobs", number, body)
        for step in ("draft", "run"):
            if job is not None:
                job = self._post(client, draw, f"/v1/jobs/{job['id']}/{step}", number)

    def _post(
        self, client: httpx.Client, draw: random.Random, path: str, number: int, body: object = None
    ) -> Mapping[str, Any] | None:
        headers = {"Idempotency-Key": hashlib.sha256(f"{self._key}{number}".encode()).hexdigest()}
        while not self._stopping.is_set():
            try:
                answer = client.post(draw.choice(self._urls) + path, json=body, headers=headers)
            except httpx.HTTPError:
                self.unanswered += 1
                self._stopping.wait(0.1)
                continue
            if answer.status_code == 503:
                assert "retry-after" in answer.headers, answer.text
                self.refused += 1
                self._stopping.wait(0.1)
                continue
            assert answer.status_code in {200, 201}, answer.text
            document: Mapping[str, Any] = answer.json()
            self.receipts.append(document["audit"])
            return document
        return None
