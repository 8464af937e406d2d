"""Runs the commands of a document in one shell, and compares their output with the one that the document shows.

Numbers, ids, hashes and times differ from run to run: they are compared by their form, and one of a thing may be
several. An id that the document shows and types again later stands for the one that really came. `…` in a document
stands for anything.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.collector import ROOT
from tests.support.documented import Typed
from tests.support.poll_until import poll_until
from tests.support.processes import Process, heeds, start_process

_TOKEN = re.compile(
    r"(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|(?P<time>\d{4}-\d\d-\d\dT[\d:.]+Z)|(?P<hex>\b(?=[0-9a-f]*\d)[0-9a-f]{16,64}\b)"
    r"|(?P<counted>\d+ (?P<noun>checkpoint|record|stream)s?\b)|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<any>…)|(?P<space>\s+)"
)
_FORMS = {
    "uuid": r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    "time": r"\d{4}-\d\d-\d\dT[\d:.]+Z",
    "hex": r"[0-9a-f]+",
    "counted": r"\d+ {noun}s?",
    "number": r"\d+(?:\.\d+)?",
    "any": r".*?",
    "space": r"\s*",
}


def as_shown(shown: str) -> re.Pattern[str]:
    """Return what finds the shown text in a real one, each different id as a group."""
    parts: list[str] = []
    at = 0
    for token in _TOKEN.finditer(shown):
        form = _FORMS[token.lastgroup or ""].replace("{noun}", token["noun"] or "")
        parts += [re.escape(shown[at : token.start()]), form]
        at = token.end()
    return re.compile("".join([*parts, re.escape(shown[at:])]), re.DOTALL)


class Shell:
    """A shell in a folder that looks like a fresh clone, in which documents are followed.

    Args:
        folder: a new folder; gets a link to everything of the repository but data.
        environment: variables beside those that a shell needs.
        instead: texts of documents, and what is typed instead: ports and places of this machine.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], instead: Mapping[str, str]) -> None:
        self._folder = folder
        self._instead = dict(instead)
        self._ids: dict[str, str] = {}
        self._running: dict[str, Process] = {}
        self._marks = 0
        folder.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in {"var", ".git"}:
                (folder / entry.name).symlink_to(entry)
        path = os.environ["PATH"]  # noqa: TID251 - of the test run
        self._environment = {
            "PATH": f"{ROOT / '.venv' / 'bin'}:{path}",
            "HOME": os.environ.get("HOME", "/"),  # noqa: TID251 - caches of builds lie there
            **environment,
        }
        self._shell = start_process(
            [shutil.which("bash") or "bash", "--noprofile", "--norc"],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            # With all that the command started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._shell.kill()
        self._shell.communicate()

    def means(self, told: str, true: str) -> None:
        """Replace a text of the document in all commands that follow."""
        self._instead[told] = true

    def follow(self, typed: Typed, status: int = 0) -> str:
        """Type a command, compare its output with the document's, and return it.

        Raises:
            AssertionError: it ended with another exit status, or showed something else.
        """
        output, ended = self._type(self._made_true(typed.command))
        assert ended == status, f"$ {typed.command}\nended with {ended}:\n{output}"
        self._compare(typed, output)
        return output

    def start(self, typed: Typed, kind: str) -> None:
        """Start a command that runs on, instead of one of the same kind, and wait for what the document shows of it."""
        self.stop(kind)
        log = self._folder.parent / f"{kind}.log"
        log.write_text("")
        exported, _ = self._type("export -p")
        script = f"{exported}\nexec bash -c {_quoted(self._made_true(typed.command))}"
        with log.open("ab") as output:
            self._running[kind] = start_process(
                [shutil.which("bash") or "bash", "-c", script],
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        form, process = as_shown(self._made_true(typed.shown)), self._running[kind]

        def is_there() -> bool:
            assert process.poll() is None, f"$ {typed.command}\nended with {process.returncode}:\n{log.read_text()}"
            # A command that shows nothing is ready when it handles the signal that stops it.
            return form.search(log.read_text()) is not None if typed.shown else heeds(process, signal.SIGTERM)

        try:
            poll_until(is_there, f"what `{typed.command}` shows")
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{log.read_text()}") from error

    def stop_all(self) -> None:
        """Press Ctrl-C in every terminal."""
        for kind in [*self._running]:
            self.stop(kind)

    def stop(self, kind: str) -> None:
        """Press Ctrl-C in the terminal of a command that runs on."""
        process = self._running.pop(kind, None)
        if process is not None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()

    def _made_true(self, text: str) -> str:
        for told, true in {**self._instead, **self._ids}.items():
            text = text.replace(told, true)
        return text

    def _compare(self, typed: Typed, output: str) -> None:
        shown = self._made_true(typed.shown)
        found = as_shown(shown).search(output)
        assert found is not None, f"$ {typed.command}\nis to show\n{typed.shown}\nand shows\n{output}"
        ids = [token.group() for token in _TOKEN.finditer(shown) if token.lastgroup == "uuid"]
        self._ids |= dict(zip(ids, found.groups(), strict=True))

    def _type(self, command: str) -> tuple[str, int]:
        self._marks += 1
        mark = f"--- {self._marks} ended with "
        shell = self._shell
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write(f"{command}\nprintf '\\n%s%s\\n' {_quoted(mark)} $?\n")
        shell.stdin.flush()
        lines: list[str] = []
        while not (line := shell.stdout.readline()).startswith(mark):
            assert line, f"the shell has ended at: {command}"
            lines.append(line)
        return "".join(lines), int(line.removeprefix(mark))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
