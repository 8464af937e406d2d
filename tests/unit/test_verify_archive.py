"""Reading archives: whatever a collector, a compressor or a crash made of the lines, the records are found."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from telemetry.audit.verify import Found, read_copy, verify
from tests.support.ledger_maker import KEY, Ledger


@pytest.fixture
def ledger() -> Ledger:
    """Return a small intact ledger."""
    made = Ledger()
    for stream in (1, 2, 1, 2):
        made.append(stream, **{"auditrace.reason": "a line separator \u2028 and a next line \x85 are text"})
    made.checkpoint(1)
    return made


def archive_of(ledger: Ledger) -> bytes:
    """Return the ledger as an archive."""
    return b"".join(record.line().encode() + b"\n" for record in ledger.records)


def framed(lines: bytes) -> bytes:
    """Return lines as the collector's file exporter writes them with its own compression: length, frame, length, ..."""
    frames = [zstandard.ZstdCompressor().compress(line) for line in lines.splitlines()]
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def bodies(found: list[Found]) -> list[str | None]:
    """Return the bodies that were read."""
    return [one.body for one in found if not one.torn]


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(lambda lines: lines, id="plain"),
        pytest.param(lambda lines: lines[:-1], id="no line feed at the end"),
        pytest.param(lambda lines: lines.replace(b"\n", b"\r\n\n"), id="carriage returns and empty lines"),
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(lambda lines: gzip.compress(lines[:900]) + gzip.compress(lines[900:]), id="gzip members"),
        pytest.param(lambda lines: zstandard.ZstdCompressor().compress(lines), id="zstandard"),
        pytest.param(
            lambda lines: b"".join(zstandard.ZstdCompressor().compress(part) for part in (lines[:900], lines[900:])),
            id="zstandard frames",
        ),
        pytest.param(framed, id="the collector's frames"),
    ],
)
def test_every_form_of_an_archive_holds_the_same_records(
    ledger: Ledger, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """Compression is told by content, whatever the file is called, and the bodies come out byte for byte."""
    file = tmp_path / "audit.jsonl"
    file.write_bytes(pack(archive_of(ledger)))

    assert bodies(list(read_copy([file]))) == [record.text for record in ledger.records]


def test_a_folder_stands_for_the_rotated_files_in_it(ledger: Ledger, tmp_path: Path) -> None:
    """All files of a folder and those below it are read, hidden ones apart, and the records verify together."""
    (tmp_path / "older").mkdir()
    lines = archive_of(ledger).splitlines(keepends=True)
    (tmp_path / "older" / "audit-2026-01-01T00-00-00.000.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[:3])))
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[3:]))
    (tmp_path / ".audit.jsonl.swp").write_bytes(b"\x00")

    report = verify(read_copy([tmp_path]), public_keys=[KEY.public_key()])

    assert report.verdict == "intact"
    assert report.records == len(ledger.records)


def test_lines_of_bodies_are_read_as_they_are(ledger: Ledger, tmp_path: Path) -> None:
    """A line that is not OTLP is a body itself, without an index to compare with."""
    file = tmp_path / "bodies.jsonl"
    file.write_text("".join(f"{record.text}\n" for record in ledger.records))

    found = list(read_copy([file]))

    assert bodies(found) == [record.text for record in ledger.records]
    assert all(one.index is None for one in found)
    assert [one.place.line for one in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("at", [5, 40, 500, 1200, -2])
def test_a_torn_last_line_is_a_note_and_not_a_break(ledger: Ledger, tmp_path: Path, at: int) -> None:
    """A last line that was not written to its end is noted; the verdict depends on what the other lines hold."""
    file = tmp_path / "audit.jsonl"
    file.write_bytes(archive_of(ledger) + ledger.records[-1].line().encode()[:at])

    report = verify(read_copy([file]), public_keys=[KEY.public_key()])

    assert [(finding.code, finding.place) for finding in report.findings] == [
        ("torn_line", f"{file}:{len(ledger.records) + 1}")
    ]
    assert report.verdict == "intact"
    assert report.exit_status == 0


@pytest.mark.parametrize("at", [5, 40, 500, 1200])
def test_reading_goes_on_behind_a_fragment_within_a_line(ledger: Ledger, tmp_path: Path, at: int) -> None:
    """A whole line that was appended to a fragment is read; only the fragment is lost."""
    lines = [record.line().encode() for record in ledger.records]
    file = tmp_path / "audit.jsonl"
    file.write_bytes(lines[1][:at] + b"\n".join(lines) + b"\n")

    report = verify(read_copy([file]), public_keys=[KEY.public_key()])

    assert [finding.code for finding in report.findings] == ["torn_line"]
    assert report.verdict == "intact"


def test_whole_lines_that_were_run_together_are_all_read(ledger: Ledger, tmp_path: Path) -> None:
    """Line feeds that got lost between whole lines lose no record."""
    file = tmp_path / "audit.jsonl"
    file.write_bytes(archive_of(ledger).replace(b"\n", b""))

    assert bodies(list(read_copy([file]))) == [record.text for record in ledger.records]


@pytest.mark.parametrize("lost", [1, 9, 200])
@pytest.mark.parametrize("pack", [gzip.compress, framed], ids=["gzip", "the collector's frames"])
def test_a_compressed_file_cut_short_is_read_as_far_as_it_goes(
    ledger: Ledger, tmp_path: Path, pack: Callable[[bytes], bytes], lost: int
) -> None:
    """A compressed file that a crash cut short is noted as torn; what it lost shows as missing records."""
    file = tmp_path / "audit.jsonl.gz"
    file.write_bytes(pack(archive_of(ledger))[:-lost])

    found = list(read_copy([file]))

    assert found[-1].torn
    assert bodies(found) == [record.text for record in ledger.records][: len(bodies(found))]


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\n", b"[1]\n", b"7\n", b'"text"\n', b"[" * 100_000 + b"\n", b'{"resourceLogs":7}\n']
)
def test_what_is_no_record_at_all_is_noted(tmp_path: Path, line: bytes) -> None:
    """A line that is neither OTLP JSON nor an object is noted, and breaks nothing by itself."""
    file = tmp_path / "audit.jsonl"
    file.write_bytes(line)

    assert [one.torn for one in read_copy([file])] == [True]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A path that cannot be read is never taken for an empty archive."""
    with pytest.raises(FileNotFoundError):
        list(read_copy([tmp_path / "audit.jsonl"]))


def test_a_line_longer_than_a_read_is_whole(ledger: Ledger, tmp_path: Path) -> None:
    """Lines of several megabytes, as batches of a collector are, come out whole."""
    text = ledger.records[1].copy()
    text.attributes["auditrace.reason"] = "x" * 3_000_000
    file = tmp_path / "audit.jsonl"
    file.write_bytes(text.line().encode() + b"\n" + archive_of(ledger))

    assert bodies(list(read_copy([file]))) == [text.text, *(record.text for record in ledger.records)]
