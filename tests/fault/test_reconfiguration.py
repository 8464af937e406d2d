"""The sink is moved and a template weakened, and the process dies on the way: the old sink says so, whenever it dies.

A child opens the ledger under the new settings and configures itself as a start does. It is killed at each system call
of the thread that offers the records to the old sink, and of the lane that commits them. Then another process starts.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from service.bootstrap.configuring import configure
from service.bootstrap.databases import database_of
from service.bootstrap.node import Node
from service.bootstrap.relaying import relay_of
from service.config import read_settings
from telemetry.audit.verify import read_copy, verify
from tests.fault.fault_child import CONFIGURED
from tests.fault.faults import Children, Ended, Fault
from tests.support.archive import archived
from tests.support.jobs import Record
from tests.support.keys import public_key

TEMPLATE: Final = """
[templates.wipe]
description = "Remove everything"
command = ["true"]
requires_confirmation = {}
"""
STORY: Final = ["template sha256 text", "service configuration sink.archive"]
"""What is recorded: the sink was moved, and a template changed."""


def _settings(folder: Path, sink: str) -> dict[str, str]:
    return {
        "AUDITRACE_DATABASE": f"sqlite:///{folder}/auditrace.db",
        "AUDITRACE_AUDIT_ARCHIVE": str(folder / sink / "audit.jsonl"),
        "AUDITRACE_SIGNING_KEY": str(folder / "keys" / "signing.pem"),
        "AUDITRACE_LEDGER_SECRET": str(folder / "keys" / "ledger.secret"),
        "AUDITRACE_TEMPLATES": str(folder / f"{sink}.toml"),
    }


def _start_and_stop(settings: Mapping[str, str]) -> None:
    """Start a process, let its relay deliver everything, and stop it."""
    with closing(Node(read_settings(settings), "api", is_daemon=False)) as node:
        configure(node, CONFIGURED, (), lambda _: False)
        relay = relay_of(node.settings, node.opened.outbox(), node.telemetry.instruments)
        node.opened.close_ledger()
        assert relay.drain(60)
        relay.close()


def _changed(bodies: Iterable[str]) -> Sequence[str]:
    """Return the records that state a change of a configuration, each once, in a few words."""
    records = {one.record_id: one for one in map(Record, bodies) if one.event_name == "service.configure"}
    return [
        f"{one.attributes['audit.target.type']} {' '.join(sorted(one.changes))}"
        for one in records.values()
        if any("from" in change for change in one.changes.values())
    ]


def _committed(folder: Path) -> Sequence[str]:
    return _changed(str(found.body) for found in database_of(f"sqlite:///{folder}/auditrace.db").records())


def _delivered(folder: Path, sink: str) -> Sequence[str]:
    return _changed(each.record.body.string_value for each in archived(folder / sink))


def _wrong(folder: Path, ended: Ended) -> Iterator[str]:
    committed, offered = _committed(folder), _delivered(folder, "old")
    if committed not in ([], STORY):
        yield f"it is recorded in part: {committed}"
    if ended.values("begins") and offered != STORY:
        yield f"the process began to work, and the old sink had {offered}"
    if offered and not committed:
        yield "the old sink has a record that was not committed"
    _start_and_stop(_settings(folder, "new"))
    found = {"ledger": _committed(folder), "old": _delivered(folder, "old"), "new": _delivered(folder, "new")}
    yield from (f"after the next start, {place} has {told}" for place, told in found.items() if told != STORY)
    key = public_key(folder / "keys" / "signing.pem")
    for copy in (["old"], ["old", "new"]):
        report = verify(read_copy([folder / name for name in copy]), public_keys=[key])
        if report.verdict != "intact":
            yield f"{' and '.join(copy)}: {report.summary()}"


@pytest.mark.parametrize("watched", ["configure", "lane-0"])
def test_the_old_sink_is_told_wherever_the_process_dies(
    tmp_path: Path, watched: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever call it dies at, the record is made once, is in both sinks, and nothing works before that."""
    live, start = tmp_path / "live", tmp_path / "start"
    live.mkdir()
    for sink, is_confirmed in (("old", "true"), ("new", "false")):
        (live / f"{sink}.toml").write_text(TEMPLATE.format(is_confirmed), encoding="utf-8")
    _start_and_stop(_settings(live, "old"))
    shutil.copytree(live, start)
    order: dict[str, Any] = {"settings": _settings(live, "new"), "watched": watched}
    wrong: list[str] = []
    with Children(tmp_path / "log") as children:
        calls = children.calls("configure", live, **order)
        wrong += [f"undisturbed: {text}" for text in _wrong(live, Ended([{"begins": True}], 0))]
        for place in range(len(calls)):
            shutil.rmtree(live)
            shutil.copytree(start, live)
            injected = Fault("signal=KILL", calls, place, is_lasting=False)
            ended = children.run("configure", live, injected, **order)
            wrong += [f"{injected}: {text}" for text in _wrong(live, ended)]
    with capsys.disabled():
        sys.stdout.write(f"configure, {watched}: {len(calls)} calls\n")
    assert not wrong, "\n".join([f"{len(wrong)} wrong", *wrong[:20]])
    assert len(calls) > 3
