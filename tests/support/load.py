"""Clients that work until told to stop, try again what was not answered, and keep every receipt."""

import hashlib
import itertools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import httpx

from tests.support.poll_until import poll_until

Post: TypeAlias = Callable[..., Mapping[str, Any] | None]
"""Sends a request until it is answered: path, number of the turn and body; returns None once the load is stopped."""


class Load:
    """Clients that create jobs, and run every fourth.

    A request that gets no answer is repeated under the same Idempotency-Key, as a client would, at whichever server;
    only what was answered with a receipt counts as acknowledged.

    Args:
        urls: of the servers.
        key: an API key.
        clients: how many there are.
    """

    def __init__(self, urls: Sequence[str], key: str, clients: int = 4) -> None:
        self.receipts: list[Mapping[str, Any]] = []
        self.unanswered = 0
        self.refused = 0
        self.failures: list[BaseException] = []
        self._urls = urls
        self._key = key
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
        """Raise the first error that ended a client."""
        for failure in self.failures:
            raise failure

    def wait_for(self, more: int) -> None:
        """Wait until so many more requests were acknowledged."""
        goal = len(self.receipts) + more

        def is_there() -> bool:
            self.require_sound()
            return len(self.receipts) >= goal

        poll_until(is_there, f"{more} more receipts", 120)

    def turn(self, post: Post, number: int) -> None:
        """Do what a client does in one turn, which has a number of its own."""
        job = post("/v1/jobs", number, {"template": "greet", "parameters": {"name": str(number)}})
        if number % 4 == 0:
            self.run(post, job, number)

    def run(self, post: Post, job: Mapping[str, Any] | None, number: int) -> None:
        """Draft and trigger a job, unless the load was stopped before."""
        for step in ("draft", "run"):
            if job is not None:
                job = post(f"/v1/jobs/{job['id']}/{step}", number)

    def _work(self, seed: int) -> None:
        draw = random.Random(seed)
        try:
            with httpx.Client(headers={"Authorization": f"Bearer {self._key}"}, timeout=30) as client:
                while not self._stopping.is_set():
                    self.turn(lambda *request: self._post(client, draw, *request), next(self._numbers))
        except BaseException as error:  # noqa: BLE001 - raised by who waits for the load
            self.failures.append(error)

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
