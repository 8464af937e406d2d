"""Takes the signals that stop a process, at any moment from its start on, and divides the time until its exit."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_ONCE: Final = b"h"
_REQUEST: Final = b"."

# Shares of the grace. The share kept from runs is for recording their ends, deliveries and telemetry.
RUNS_KEEP: Final = 0.5
KILL_SHARE: Final = 0.2
DELIVERIES_KEEP: Final = 0.15
WEBHOOKS_SHARE: Final = 0.25
LEAST_TELEMETRY_S: Final = 0.5

Say = Callable[[str], None]
"""Prints one line for the operator."""


class StopSignal:
    """Notes that a stop was asked for, by SIGTERM, SIGINT or SIGHUP. To be entered on the main thread.

    In a process that reloads, SIGHUP asks for a stop only if there is a controlling terminal (`reloading.py`).

    It is a pipe and no event, because the handler may interrupt a wait for the event, which holds the event's lock.
    """

    def __init__(self, *, reloads: bool = False) -> None:
        self._reloads = reloads
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}
        self._listening: threading.Thread | None = None

    def __enter__(self) -> Self:
        is_hangup = heeds_hangup() and (not self._reloads or has_terminal())
        heeded = [*_SIGNALS, *([signal.SIGHUP] if is_hangup else [])]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if callable(handler) else signal.SIG_DFL)
        os.close(self._writing)
        if self._listening is not None:
            # The thread ends when it reads the end of the pipe.
            self._listening.join()
        os.close(self._reading)

    @property
    def descriptor(self) -> int:
        """A file descriptor that can be read once a stop was asked for, and from then on."""
        return self._reading

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until a stop is asked for or the time is over; True when it is asked for."""
        return bool(select.select([self._reading], [], [], timeout_s)[0])

    def on_second(self, hurry: Callable[[], None]) -> None:
        """Call `hurry`, from another thread, when a stop is asked for again; to be called once, after the first time.

        SIGHUP does not count: a terminal that is closed may send it twice.
        """
        self._listening = threading.Thread(target=self._listen, args=[hurry], name="stop", daemon=True)
        self._listening.start()

    def _listen(self, hurry: Callable[[], None]) -> None:
        requests = 0
        while True:
            select.select([self._reading], [], [])
            received = os.read(self._reading, 64)
            if not received:
                return
            # SIGHUP counts only as the first request.
            requests += received[:1].count(_ONCE) * (requests == 0) + received.count(_REQUEST)
            if requests > 1:
                hurry()
                return

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # A full pipe holds more requests than are counted.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, _ONCE if number == signal.SIGHUP else _REQUEST)


def has_terminal() -> bool:
    """Tell whether this process has a controlling terminal, whose end the kernel or a shell reports by SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def heeds_hangup() -> bool:
    """Tell whether SIGHUP counts: `nohup` makes a process ignore it, so that it outlives its terminal."""
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


class Grace:
    """The time in which a stopping process exits. `hurry` ends it at once."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self.seconds = seconds
        self._monotonic = monotonic
        self._deadline: float | None = None
        self._is_over = False
        self._waits: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Start the time, unless it runs already."""
        if self._deadline is None:
            self._deadline = self._monotonic() + self.seconds

    def left_s(self, kept: float = 0.0) -> float:
        """Return how many seconds are left, without a part of the whole time (0 to 1) that is kept for later steps."""
        if self._is_over or self._deadline is None:
            return 0.0 if self._is_over else self.seconds * (1 - kept)
        return max(0.0, self._deadline - self._monotonic() - self.seconds * kept)

    def at_hurry(self, cut: Callable[[], None]) -> None:
        """Have `hurry` call `cut`, from another thread, to end a wait."""
        self._waits.append(cut)

    def hurry(self) -> None:
        """Leave no more time, and end all waits."""
        self._is_over = True
        for cut in self._waits:
            cut()


def tell(say: Say, line: str) -> None:
    """Print a line of a stopping process. The reader of its output may be gone; the stop must not fail for that."""
    with contextlib.suppress(OSError, ValueError):
        say(line)


def left_of(count: int | None, held: str | None) -> str:
    """Return the last line of a stopped process, about the outbox.

    Args:
        count: how many records are not delivered; None when the database cannot be read.
        held: why the sink took none the last time; None when it took them, or this process delivers none.
    """
    if count == 0:
        return "every record is delivered"
    records = "1 record is" if count == 1 else f"{count} records are"
    text = "it cannot be told whether records are left" if count is None else f"{records} left in the outbox"
    text += ", for a relay that runs or for the next start"
    return text if held is None else f"{text}; the sink takes none: {held}"
