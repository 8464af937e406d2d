"""The embedded archive on a real disk: what is acknowledged is a whole line in it, whatever happened before."""

import errno
import fcntl
import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.audit.otlp import otlp_json
from telemetry.audit.request import export_request
from telemetry.delivery.answers import Accepted, Unreachable
from telemetry.delivery.archive import ArchiveSink
from telemetry.errors import TelemetrySettingsError
from tests.support.archive import archived
from tests.support.deliveries import arrived, commit, committed
from tests.support.ids import ManualClock
from tests.support.sqlite_stores import SqliteStore


@pytest.fixture
def requests(store: SqliteStore) -> Callable[[], bytes]:
    """Makes requests of a few records, each with others."""
    lane, outbox = store.lane(), store.outbox()

    def request() -> bytes:
        commit(store, lane, 2)
        records = outbox.take(100, 1 << 20)
        outbox.delivered(records)
        return export_request(records)

    return request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the archive is, in a folder of its own that does not exist yet."""
    return tmp_path / "var" / "archive" / "audit.jsonl"


def test_a_request_is_a_line(store: SqliteStore, path: Path, requests: Callable[[], bytes]) -> None:
    """In the format of the collector's file exporter, with every byte that was committed, and nothing else in there."""
    sink = ArchiveSink(path, ManualClock())
    sent = [requests() for _ in range(3)]
    assert [sink.send(request) for request in sent] == [Accepted()] * 3
    assert path.read_bytes().split(b"\n") == [*(otlp_json(request) for request in sent), b""]
    assert arrived(each.record for each in archived(path.parent)) == committed(store)
    assert _names(path.parent) == ["audit.jsonl"]


def test_an_archive_is_continued(path: Path, requests: Callable[[], bytes]) -> None:
    """The next process appends."""
    sent = [requests() for _ in range(2)]
    for request in sent:
        ArchiveSink(path, ManualClock()).send(request)
    assert path.read_bytes().splitlines() == [otlp_json(request) for request in sent]


@pytest.mark.parametrize("cut", [1, 15, 17, 200, -1])
def test_a_torn_last_line_is_removed(path: Path, requests: Callable[[], bytes], cut: int) -> None:
    """What a crash cut short was acknowledged to nobody: it is gone after the start, and whole lines stay."""
    whole, torn = otlp_json(requests()), otlp_json(requests())
    path.parent.mkdir(parents=True)
    path.write_bytes(whole + b"\n" + torn[:cut])
    sink = ArchiveSink(path, ManualClock())
    assert path.read_bytes() == whole + b"\n"
    following = requests()
    sink.send(following)
    assert path.read_bytes().splitlines() == [whole, otlp_json(following)]


def test_a_torn_only_line_is_removed(path: Path, requests: Callable[[], bytes]) -> None:
    """Also when it is the only one, and longer than what is read at once."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"resourceLogs":[' + b" " * 300_000)
    ArchiveSink(path, ManualClock())
    assert path.read_bytes() == b""


def test_a_last_line_without_its_line_feed_is_kept(path: Path, requests: Callable[[], bytes]) -> None:
    """A whole line may have been acknowledged by whoever wrote it, a collector for one; it only gets its end."""
    whole = otlp_json(requests())
    path.parent.mkdir(parents=True)
    for content in (whole, whole[:50] + whole):
        path.write_bytes(content)
        ArchiveSink(path, ManualClock())
        assert path.read_bytes() == content + b"\n"


def test_what_another_process_left_torn_is_mended_before_the_next_line(
    path: Path, requests: Callable[[], bytes]
) -> None:
    """A second writer may die while this one lives."""
    sink = ArchiveSink(path, ManualClock())
    first, second = requests(), requests()
    sink.send(first)
    with path.open("ab") as dying:
        dying.write(otlp_json(second)[:100])
    sink.send(second)
    assert path.read_bytes().splitlines() == [otlp_json(first), otlp_json(second)]


def test_a_full_file_is_rotated(store: SqliteStore, path: Path, requests: Callable[[], bytes]) -> None:
    """No file grows beyond its size, none is deleted, no line is cut, and the names tell their order."""
    clock = ManualClock()
    sink = ArchiveSink(path, clock, max_bytes=8000)
    for _ in range(10):
        sink.send(requests())
        clock.advance(1)
    names = _names(path.parent)
    assert names[-1] == "audit.jsonl"
    assert names[0].startswith("audit-2026-01-02T03-04-")
    assert len(names) > 2
    assert all(0 < file.stat().st_size <= 8000 for file in path.parent.iterdir())
    assert arrived(each.record for each in archived(path.parent)) == committed(store)


def test_files_that_are_rotated_at_the_same_instant_have_names_of_their_own(
    path: Path, requests: Callable[[], bytes]
) -> None:
    """No rotated file replaces another, also when the clock stands still."""
    sink = ArchiveSink(path, lambda: 1_767_323_045_000_000_000, max_bytes=1)
    for _ in range(4):
        sink.send(requests())
    assert _names(path.parent) == [
        "audit-2026-01-02T03-04-05.000.jsonl",
        "audit-2026-01-02T03-04-05.001.jsonl",
        "audit-2026-01-02T03-04-05.002.jsonl",
        "audit.jsonl",
    ]


def test_a_line_larger_than_a_file_has_one_of_its_own(path: Path, requests: Callable[[], bytes]) -> None:
    """The size bounds files, never records."""
    sink = ArchiveSink(path, ManualClock(), max_bytes=10)
    assert sink.send(requests()) == Accepted()
    assert sink.send(requests()) == Accepted()


def test_writers_take_turns(store: SqliteStore, path: Path, requests: Callable[[], bytes]) -> None:
    """Relays of several processes may write the same archive: lines stay whole, and files are rotated once."""
    sent = [[requests() for _ in range(15)] for _ in range(3)]

    def write(requests_: list[bytes]) -> None:
        sink = ArchiveSink(path, ManualClock(), max_bytes=20_000)
        assert all(sink.send(request) == Accepted() for request in requests_)

    threads = [threading.Thread(target=write, args=(part,)) for part in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(arrived(each.record for each in archived(path.parent))) == committed(store)


def test_a_line_is_not_acknowledged_while_another_process_writes(
    path: Path, requests: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is on the folder, so that there is no lock file among the archive files; who waits too long is told."""
    monkeypatch.setattr("telemetry.delivery.archive._LOCK_TIMEOUT_S", 0.05)
    sink = ArchiveSink(path, ManualClock())
    holder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    answer = sink.send(requests())
    assert isinstance(answer, Unreachable)
    assert "another process is writing it" in answer.message
    os.close(holder)
    assert sink.send(requests()) == Accepted()


def test_a_full_disk_holds_the_records(
    path: Path, requests: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be written of a line is taken back, and the answer says why; the next attempt begins anew."""
    sink = ArchiveSink(path, ManualClock())
    first, second = requests(), requests()
    sink.send(first)
    write, left = os.write, [100]

    def nearly_full(descriptor: int, payload: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written, left[0] = write(descriptor, payload[: left[0]]), 0
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", nearly_full)
        answer = sink.send(second)
    assert answer == Unreachable("OSError", "it cannot be written: No space left on device")
    assert path.read_bytes() == otlp_json(first) + b"\n"
    assert sink.send(second) == Accepted()
    assert path.read_bytes().splitlines() == [otlp_json(first), otlp_json(second)]


def test_what_could_not_be_synced_is_not_acknowledged(
    path: Path, requests: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line counts when it is on disk; a failed sync takes it back."""
    sink = ArchiveSink(path, ManualClock())
    first, second = requests(), requests()
    sink.send(first)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        assert isinstance(sink.send(second), Unreachable)
    assert path.read_bytes() == otlp_json(first) + b"\n"


def test_every_line_is_synced_before_it_is_acknowledged(
    path: Path, requests: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file after each line, and the folder for each new name."""
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    sink = ArchiveSink(path, ManualClock(), max_bytes=5000)
    first, second, third = requests(), requests(), requests()
    monkeypatch.setattr(os, "fsync", note)
    for request, expected in (
        (first, ["archive", "audit.jsonl"]),
        (second, ["archive", "archive", "audit.jsonl"]),
    ):
        synced.clear()
        sink.send(request)
        assert synced == expected
    synced.clear()
    sink._max_bytes = 1 << 30
    sink.send(third)
    assert synced == ["audit.jsonl"]


@pytest.mark.parametrize(
    "content", [b"name,value\n1,2\n", b"{}\n", gzip.compress(b"{}", mtime=0), b'{"resourceSpans":[]}\n', b"x"]
)
def test_a_file_that_is_no_archive_is_refused_untouched(path: Path, content: bytes) -> None:
    """A wrong path is a mistake in the settings, found at the start, and costs nobody's file."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(TelemetrySettingsError, match=r"not an archive.*AUDITRACE_AUDIT_ARCHIVE"):
        ArchiveSink(path, ManualClock())
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """With the reason, and the setting to change."""
    (tmp_path / "file").touch()
    with pytest.raises(TelemetrySettingsError, match=r"cannot be written.*AUDITRACE_AUDIT_ARCHIVE"):
        ArchiveSink(tmp_path / "file" / "audit.jsonl", ManualClock())


def test_an_empty_line_at_the_head_is_no_damage(path: Path, requests: Callable[[], bytes]) -> None:
    """A collector's line feed may land alone in a new file."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\n")
    request = requests()
    assert ArchiveSink(path, ManualClock()).send(request) == Accepted()
    assert path.read_bytes() == b"\n" + otlp_json(request) + b"\n"


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())
