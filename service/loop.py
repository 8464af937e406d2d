"""A thread that takes one turn after another until it is stopped; a turn that fails is logged once, and not the end."""

import threading
from collections.abc import Callable, Sequence

from service.errors import AuditraceError, TryLaterError
from service.outage import Outage


class Loop:
    """The thread of a part of the process, such as the checkpointer's."""

    def __init__(
        self, name: str, steps: Sequence[Callable[[], None]], pause_s: Callable[[], float], outage: Outage
    ) -> None:
        """Prepare the thread.

        Args:
            name: of the thread.
            steps: of one turn; each is taken also when one before it has failed.
            pause_s: how long to wait before the next turn.
            outage: what is said of turns that fail; the first problem of a turn counts.
        """
        self._steps = steps
        self._pause_s = pause_s
        self._outage = outage
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """True once the loop was told to end."""
        return self._stopping.is_set()

    @property
    def problem(self) -> str | None:
        """What kept the last turn from its work; None when nothing did."""
        return self._outage.problem

    def start(self) -> None:
        """Start to take turns."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the turn that it is taking; one that was never started ends too."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._take_turn()
            self._stopping.wait(self._pause_s())

    def _take_turn(self) -> None:
        problems: list[str] = []
        for step in self._steps:
            try:
                step()
            except TryLaterError as error:
                problems.append(error.detail)
            except (AuditraceError, OSError) as error:
                problems.append(str(error))
            except Exception as error:  # noqa: BLE001 - a thread that died would leave its work undone in silence
                problems.append(self._outage.unexpected(error))
        self._outage.note(problems[0] if problems else None)
