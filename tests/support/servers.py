"""Servers of others that tests run: a process that is started until it is healthy, and whose log is kept."""

import subprocess
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.support.poll_until import poll_until
from tests.support.processes import Process, start_process


class ServerError(Exception):
    """A server did not start, or did not end when asked; the message ends with its log."""


class Server(ABC):
    """One server; a kind of it says how it is started and where it tells that it is healthy.

    Args:
        log_path: Gets what it writes on both outputs, over restarts.
    """

    name: ClassVar[str]
    start_s: ClassVar[float]
    """How long it may take until it is healthy."""

    def __init__(self, log_path: Path) -> None:
        self.log_path = log_path
        self._process: Process | None = None

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Returns the command line."""

    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """Returns the environment."""

    @abstractmethod
    def health_url(self) -> str:
        """Returns the URL that answers 200 once requests are served."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it and returns when it says that it is healthy.

        Raises:
            ServerError: It ended, or was not healthy in time.
        """
        command = self.command()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = start_process(
                command, env=self.settings(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            poll_until(self._is_healthy, f"a healthy {self.name}", self.start_s)
        except TimeoutError as error:
            self.kill()
            raise ServerError(f"{error}\n{self._log_tail()}") from error

    def kill(self) -> None:
        """Ends it with SIGKILL; does nothing when it has ended already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise ServerError(f"{self.name} ended with {self._process.returncode}\n{self._log_tail()}")
        try:
            with urllib.request.urlopen(self.health_url(), timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]
