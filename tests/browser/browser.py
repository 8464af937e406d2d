"""A real Chromium, asked over DevTools by a pipe: no driver, no WebSocket, nothing to install but the browser."""

import base64
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.poll_until import poll_until
from tests.support.processes import start_process

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--mute-audio",
)
TIMEOUT_S = 60.0
# Chromium reads commands on descriptor 3 and answers on 4, each message ended by a NUL.
_START = "import os, sys; a, b, *c = sys.argv[1:]; os.dup2(int(a), 3); os.dup2(int(b), 4); os.execv(c[0], c)"


def require_chromium() -> str:
    """Return the browser of this machine; without one the test is skipped, or fails where `CI` is set."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return found
    reason = "NO CHROMIUM: the audit explorer is not tested; install the Debian package chromium"
    # The variable belongs to the test run; the rule against the environment is about the service's settings.
    if os.environ.get("CI"):  # noqa: TID251
        pytest.fail(reason)
    pytest.skip(reason)


class Browser:
    """One browser with one page; what it says on its console, or is refused by policy, is kept in `complaints`."""

    def __init__(self, program: str, folder: Path, width: int = 1280, height: int = 900) -> None:
        command_out, self._command = os.pipe()
        self._answer, answer_in = os.pipe()
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        size = f"--window-size={width},{height}"
        arguments = [program, *FLAGS, *sandbox, size, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        with (folder / "chromium.log").open("wb") as log:
            self._process = start_process(
                [sys.executable, "-c", _START, str(command_out), str(answer_in), *arguments],
                pass_fds=(command_out, answer_in),
                stdout=log,
                stderr=log,
            )
        os.close(command_out)
        os.close(answer_in)
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._command)
        os.close(self._answer)
        self._process.terminate()
        self._process.wait(TIMEOUT_S)

    def open(self, url: str) -> None:
        """Go to a page, and return when its scripts have run."""
        self._call("Page.navigate", url=url)
        self.wait(f"location.href === {url!r} && document.readyState === 'complete'", "the page")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression on the page; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, what: str) -> None:
        """Return when an expression on the page is true."""
        poll_until(lambda: bool(self.evaluate(script)), what, TIMEOUT_S)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self._call("Input.insertText", text=text)

    def press(self, key: str, code: int, *, shift: bool = False) -> None:
        """Press a key, by name and number, as a user does."""
        common: Mapping[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        text = {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def show(self, *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
        """Set the size of the window and the preferred colours."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Save a picture of the page as it is shown."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def accessible(self) -> list[tuple[str, str]]:
        """Return role and name of everything that assistive technology is told of."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        told = [node for node in nodes if not node.get("ignored")]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in told]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._command, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._answer, 1 << 20)
            assert part, "the browser has ended: see chromium.log"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        handle = self._EVENTS.get(answer.get("method", ""))
        if handle is not None:
            handle(self, answer["params"])
        return answer

    def _on_log(self, parameters: Mapping[str, Any]) -> None:
        self.complaints.append(parameters["entry"]["text"])

    def _on_exception(self, parameters: Mapping[str, Any]) -> None:
        self.complaints.append(str(parameters["exceptionDetails"]))

    def _on_console(self, parameters: Mapping[str, Any]) -> None:
        self.complaints.append(str(parameters["args"]))

    def _on_request(self, parameters: Mapping[str, Any]) -> None:
        self.requests.append(parameters["request"]["url"])

    _EVENTS: Mapping[str, Callable[["Browser", Mapping[str, Any]], None]] = {
        "Log.entryAdded": _on_log,
        "Runtime.exceptionThrown": _on_exception,
        "Runtime.consoleAPICalled": _on_console,
        "Network.requestWillBeSent": _on_request,
    }
