"""Files in parts and in any number of processes: every line is read once, and the answer is the same."""

import gzip
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.audit.verify import Found, Report, SourcePlace, read_copy, verify, verify_copy
from telemetry.audit.verify import sources as reading
from telemetry.audit.verify.read.files import File, lines_of, parts_of, rounds_of
from tests.support.ledger_maker import KEY, Ledger
from tests.unit.test_verify_vectors import EXPECTED, VECTORS, public_key


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"one",
        b"one\n",
        b"one\ntwo\nthree\n",
        b"one\n\n\ntwo",
        b"a line that is longer than any part\nb\n",
        b"\n\n\n\n",
    ],
)
@pytest.mark.parametrize("part_bytes", [1, 2, 3, 4, 5, 7, 100])
def test_every_line_is_in_one_part(tmp_path: Path, text: bytes, part_bytes: int) -> None:
    """Wherever a file is cut, its lines come out whole, each from the part that it begins in."""
    file = tmp_path / "file"
    file.write_bytes(text)
    parts = parts_of(File(file, may_vanish=False), part_bytes)

    lines = [line for part in parts for line in lines_of(part)]

    assert lines == text.splitlines(keepends=True)
    assert sum(part.size_bytes for part in parts) == len(text)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of a few kilobytes be many parts, worth several processes."""
    monkeypatch.setattr(reading, "_LEAST_PART_BYTES", 4_000)
    monkeypatch.setattr(reading, "_MOST_PART_BYTES", 4_000)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", EXPECTED)
def test_parts_give_the_same_report_as_the_whole(name: str) -> None:
    """The parts of a file, each counting its own lines, give the report of the file, places included."""
    whole = verify(read_copy([VECTORS / name]), public_keys=[public_key()])

    assert verify_copy([VECTORS / name], public_keys=[public_key()], workers=1) == whole


@pytest.mark.usefixtures("small_parts")
def test_processes_give_the_same_report_as_one() -> None:
    """Any number of processes, over files of every verdict at once, gives the report of one, and tells its progress."""
    files = [VECTORS / name for name in EXPECTED]
    told: list[tuple[int, int]] = []
    one = verify(read_copy(files), public_keys=[public_key()])

    report = verify_copy(
        files, public_keys=[public_key()], workers=3, progress=lambda done, total: told.append((done, total))
    )

    assert report == one
    assert report.findings
    size = sum(file.stat().st_size for file in files)
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.usefixtures("small_parts")
def test_where_processes_cannot_share_work_one_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox without semaphores makes a verification slower, and nothing else."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(reading, "ProcessPoolExecutor", refused)
    file = VECTORS / "edited.otlp.jsonl"

    assert verify_copy([file], public_keys=[public_key()], workers=3) == verify(
        read_copy([file]), public_keys=[public_key()]
    )


@pytest.mark.usefixtures("small_parts")
def test_a_process_that_is_killed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of which a part could not be taken in is never verified without it."""
    monkeypatch.setattr(reading, "_in_process", _die)

    with pytest.raises(ChildProcessError, match="killed"):
        verify_copy([VECTORS / "intact.otlp.jsonl"], workers=2)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ledger() -> Ledger:
    """Return a ledger with checkpoints."""
    made = Ledger()
    for stream in (1, 2, 1):
        made.append(stream)
        made.checkpoint(1)
    return made


def archive(made: Ledger, first: int = 0, last: int | None = None) -> str:
    """Return records as an archive."""
    return "".join(f"{record.line()}\n" for record in made.records[first:last])


def check(found: Iterator[Found]) -> Report:
    """Verify under the test key."""
    return verify(found, public_keys=[KEY.public_key()])


def test_a_file_that_is_renamed_while_it_is_read_is_read_under_its_new_name(tmp_path: Path) -> None:
    """A rotation between the look at the folder and the reading loses no record."""
    made = ledger()
    active = tmp_path / "audit.jsonl"
    active.write_text(archive(made))
    found = read_copy([tmp_path])
    (first,) = next(rounds_of([tmp_path]))
    assert first.path == active

    active.rename(tmp_path / "audit-2026-01-01T00-00-00.000.jsonl")
    active.write_text("")

    assert check(found).records == len(made.records)


def test_a_file_that_is_compressed_while_others_are_read_is_read_compressed(tmp_path: Path) -> None:
    """A file that vanished after the look at the folder is not missed if it is there under another name."""
    made = ledger()
    old, active = tmp_path / "audit-1.jsonl", tmp_path / "audit-2.jsonl"
    active.write_text(archive(made, 4))
    old.write_text(archive(made, 0, 4))
    rounds = rounds_of([tmp_path])
    files = next(rounds)
    packed = old.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(old.read_bytes()))
    old.unlink()

    assert list(parts_of(files[0])) == []
    assert [file.path for file in next(rounds)] == [packed]
    assert check(read_copy([tmp_path])).verdict == "intact"


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """Only what was found in a folder may vanish."""
    with pytest.raises(FileNotFoundError):
        verify_copy([tmp_path / "audit.jsonl"], public_keys=[KEY.public_key()])


def test_files_and_other_copies_are_one(tmp_path: Path) -> None:
    """Records from files and from elsewhere complete each other, and a finding says where it was."""
    made = ledger()
    file = tmp_path / "audit.jsonl"
    file.write_text(archive(made, 0, 4))
    others = [Found(record.text, None, SourcePlace("elsewhere", at)) for at, record in enumerate(made.records[4:], 1)]
    others.append(Found("no record", None, SourcePlace("elsewhere", 99)))

    report = verify_copy([file], others, public_keys=[KEY.public_key()])

    assert report.records == len(made.records)
    assert [(finding.code, finding.place) for finding in report.findings] == [("body_not_json", "elsewhere:99")]


def test_the_first_of_several_copies_is_where_a_finding_is(tmp_path: Path) -> None:
    """A finding on copies in several files and lines names the first of them, whichever was read first."""
    made = ledger()
    made.records[-1].attributes["log.record.uid"] = "other"
    line = made.records[-1].line()
    for name in ("b", "a"):
        (tmp_path / name).write_text(f"\n{line}\n{line}\n")

    (finding, *_) = verify_copy([tmp_path], workers=1).findings

    assert (finding.code, finding.place) == ("gap", None)
    places = {one.code: one.place for one in verify_copy([tmp_path], workers=1).findings}
    assert places["uid_differs"] == f"{tmp_path / 'a'}:2"


def test_ids_that_are_no_uuids_are_told_as_they_are(tmp_path: Path) -> None:
    """Record ids and streams of other services keep their text in a report, and are told apart."""
    upper = "019B76DA-0000-7000-8000-000000000002"
    lines: list[str] = []
    for stream, record_id in (("a", "id"), ("b", "id"), ("c", "ID"), ("d", upper), ("e", upper.lower()), ("f", upper)):
        record = Ledger().append(1)
        record.attributes.update({"audit.record.id": record_id, "log.record.uid": record_id})
        record.attributes.update({"audit.sequence.stream_id": stream, "audit.sequence.number": 1})
        del record.attributes["audit.sequence.prev_hash"], record.attributes["audit.sequence.prev_record_id"]
        lines.append(record.line())
    (tmp_path / "a").write_text("\n".join(lines) + "\n")

    report = verify_copy([tmp_path])

    assert sorted((finding.code, finding.record_id or "") for finding in report.findings) == [
        ("conflicting_duplicate", upper),
        ("conflicting_duplicate", "id"),
    ]
    assert {finding.stream_id for finding in report.findings} < set("abdf")
    assert (report.streams, report.records) == (6, 4)
