"""Reads the templates again when a process is asked to: by SIGUSR1, and without a controlling terminal by SIGHUP."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from service.bootstrap.configuration import ConfiguredPart
from service.bootstrap.configuring import Wait, reconfigure
from service.bootstrap.invocation import user_at_host
from service.bootstrap.ledger_records import SYSTEM
from service.bootstrap.node import Node
from service.bootstrap.templates import load_templates
from service.errors import AuditraceError, SettingsError
from service.jobs.templates import Templates
from service.processes.stopping import has_terminal, heeds_hangup
from service.webhooks import WebhookEndpoint
from telemetry.audit.record import Actor

_log = logging.getLogger(__name__)

_BY_KILL, _BY_TKILL = 0, -6
_OF_KERNEL: Final = frozenset({_BY_KILL, _BY_TKILL})
"""The values of `si_code` for which the kernel itself has stated the sender (sigaction(2))."""

OnReload = Callable[[Actor], None]
"""Reloads, for this actor."""


class ReloadSignal:
    """Waits for requests to reload, and for each asks the kernel who sent it. To be entered on the main thread.

    The signals are blocked, so that a thread can take them with their sender. Threads inherit that, hence it is entered
    before any thread is started; runs do not (`service/execution/supervisor.py`).
    """

    def __init__(self) -> None:
        self._numbers: frozenset[signal.Signals] = frozenset()
        self._before: set[int] = set()
        self._listening: threading.Thread | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        hangup = [signal.SIGHUP] if heeds_hangup() and not has_terminal() else []
        self._numbers = frozenset([signal.SIGUSR1, *hangup])
        self._before = set(signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        # A request that comes now has nothing to reload, and must not end the process as a signal without a handler.
        while signal.sigtimedwait(self._numbers, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def listen(self, reload: OnReload) -> None:
        """Call `reload` for each request, also for one that came before, on a thread of its own; to be called once."""
        self._listening = threading.Thread(target=self._listen, args=[reload], name="reload", daemon=True)
        self._listening.start()

    def end(self) -> None:
        """Reload no more, and wait for a reload in progress; may be called again."""
        self._is_over = True
        listening, self._listening = self._listening, None
        if listening is not None and listening.ident is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(listening.ident, signal.SIGUSR1)
            listening.join()

    def _listen(self, reload: OnReload) -> None:
        while True:
            received = signal.sigwaitinfo(self._numbers)
            if self._is_over:
                return
            if received.si_code not in _OF_KERNEL:
                # Its sender may have stated any user, and nobody reloads in the name of another.
                _log.error("a request to reload was ignored, because the kernel does not know who sent it: use kill")
                continue
            # A sender outside of this container has no process id here.
            reload(user_at_host(received.si_uid) if received.si_pid > 0 else SYSTEM)


class Reload:
    """Puts the templates of the file in force, once their difference is on record; a broken file changes nothing."""

    def __init__(
        self,
        node: Node,
        parts: frozenset[ConfiguredPart],
        endpoints: Sequence[WebhookEndpoint],
        wait: Wait,
        others: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Reload for this process; `others` are called too, whatever becomes of the templates."""
        self._node = node
        self._parts = parts
        self._endpoints = endpoints
        self._wait = wait
        self._others = others

    def __call__(self, actor: Actor) -> None:
        """Reload, and log what came of it; never raises."""
        path = self._node.settings.templates
        try:
            for other in self._others:
                other()
            is_new = self._reconfigured(load_templates(path), actor)
        except SettingsError as error:
            _log.error("nothing was reloaded, the old templates stay in force: %s", "; ".join(error.problems))
        except AuditraceError as error:
            _log.error("nothing was reloaded, because it cannot be recorded: %s; ask again later", error)
        except Exception:  # noqa: BLE001 - a thread that died would never reload again
            _log.exception("nothing was reloaded, the old templates stay in force")
        else:
            _log.info("%s was reloaded: %s", path, "new templates are in force" if is_new else "nothing is new")

    def _reconfigured(self, templates: Templates, actor: Actor) -> bool:
        return reconfigure(self._node, self._parts, self._endpoints, templates, actor, self._wait)


def nothing_to_reload(actor: Actor) -> None:
    """Say that this process has nothing to reload."""
    _log.info("%s asked for a reload: this process has no templates, and reads changed certificates itself", actor.id)
