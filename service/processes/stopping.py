"""How a process learns that it is to stop: SIGTERM, SIGINT or SIGHUP, at any moment from its start on."""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignal:
    """Remembers that a stop was asked for. To be entered on the main thread.

    A pipe and no event: a handler that interrupts the very wait it is to end must not need the wait's lock.
    """

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        # `nohup` has SIGHUP ignored, so that the process outlives its terminal.
        heeded = [
            number for number in _SIGNALS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if callable(handler) else signal.SIG_DFL)
        os.close(self._reading)
        os.close(self._writing)

    @property
    def descriptor(self) -> int:
        """A file descriptor that can be read once a stop was asked for, and from then on."""
        return self._reading

    def wait(self, timeout_s: float | None = None) -> bool:
        """Return when a stop is asked for, or when the time is over; True when it is asked for."""
        return bool(select.select([self._reading], [], [], timeout_s)[0])

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        os.write(self._writing, b".")
