"""The command line of the verifier: what it reads, what it asks, what it prints, and its exit status."""

import errno
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.bootstrap.clock import now_ns
from service.cli import progress
from service.cli.main import main
from service.roles import VIEWER
from telemetry.audit.verify import sources
from tests.support.api import ApiUnderTest
from tests.support.both_stores import BOTH, Store
from tests.support.ledger_maker import FOREIGN_KEY, KEY, Ledger, Sealed, public_pem, stream_id
from tests.support.sqlite_stores import SqliteStore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `auditrace verify`, and return its exit status and what it printed."""

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main(["verify", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger that ends with a checkpoint over everything else."""
    made = Ledger(minutes_between=0.1)
    for stream in (1, 2, 1):
        made.append(stream)
        made.checkpoint(1)
    return made


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return the file of the ledger's public key."""
    return file_of(tmp_path, "public.pem", public_pem(KEY))


@pytest.fixture
def archive(tmp_path: Path, ledger: Ledger) -> Path:
    """Return the ledger's archive."""
    return archive_of(tmp_path, ledger.records)


def file_of(folder: Path, name: str, text: str) -> Path:
    """Write a file."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def archive_of(folder: Path, records: Sequence[Sealed], name: str = "archive/audit.jsonl") -> Path:
    """Write an archive."""
    return file_of(folder, name, "".join(f"{record.line()}\n" for record in records))


def receipt_of(record: Sealed) -> dict[str, Any]:
    """Return a receipt as the API gives it."""
    return {
        "record_id": record.record_id,
        "stream_id": record.stream,
        "sequence_number": record.number,
        "record_hash": record.hash,
    }


def test_an_intact_archive_has_the_exit_status_0(run: Run, archive: Path, key: Path, ledger: Ledger) -> None:
    """The verdict comes first, with the counts, and then the last checkpoint with number, time and hash."""
    last = ledger.checkpoints()[-1]
    status, printed, _ = run(archive, "--public-key", key)

    assert status == 0
    first, second, *_ = printed.splitlines()
    assert first == f"intact: {len(ledger.records)} records in 2 streams, 1 not yet anchored, 3 checkpoints"
    assert second == f"last checkpoint: 3 of {last.body['observed_timestamp']}, hash {last.hash}"


def test_json_has_the_members_that_machines_rely_on(run: Run, archive: Path, key: Path, ledger: Ledger) -> None:
    """Verdict, findings and counts have the names of the contract, and a finding says code, place and detail."""
    archive.write_text(archive.read_text().replace("alice", "eve"))
    status, printed, _ = run(archive, "--public-key", key, "--json")

    report = json.loads(printed)
    assert (status, report["verdict"]) == (1, "broken")
    assert {"verdict", "findings", "records", "streams", "checkpoints", "unanchored"} <= report.keys()
    assert {"code", "stream_id", "number", "record_id", "detail"} <= report["findings"][0].keys()
    assert report["last_checkpoint"]["number"] == 3
    assert (report["records"], report["streams"], report["checkpoints"]) == (len(ledger.records), 2, 3)


def test_a_broken_archive_lists_every_finding(run: Run, archive: Path, key: Path, ledger: Ledger) -> None:
    """Each finding is a line: code, stream, number, what is wrong, and where."""
    archive.write_text("".join(f"{record.line()}\n" for record in ledger.records if record.number != 2))
    status, printed, _ = run(archive, "--public-key", key)

    assert status == 1
    assert printed.startswith("broken: ")
    assert f"gap {stream_id(1)} 2: number 2 is missing" in printed
    assert f"tip_missing {stream_id(2)} 2: " in printed


def test_what_a_copy_holds_does_not_reach_the_terminal_raw(run: Run, archive: Path, ledger: Ledger) -> None:
    """Control characters in a copy are shown as escapes: whoever made it may not write to the reader's terminal."""
    ledger.records[-1].attributes["log.record.uid"] = "\x1b[2J\u202e"
    archive_of(archive.parent.parent, ledger.records)
    _, printed, _ = run(archive, "--without-key")

    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "\\x1b[2J" in printed


def test_without_a_key_nothing_is_verified_unless_it_is_asked_for(run: Run, archive: Path) -> None:
    """Who gives no key is told how to get one, and gets no verdict that could be taken for a proof."""
    status, printed, errors = run(archive)

    assert (status, printed) == (2, "")
    assert "no --public-key is given" in errors
    assert "`auditrace keys public > public.pem`" in errors
    assert "--without-key" in errors
    assert run(archive, "--json")[:2] == (2, "")


def test_without_a_key_the_verdict_says_what_was_not_checked(run: Run, archive: Path, key: Path) -> None:
    """Without a public key a copy can only agree with itself, and the verdict says so in the same line."""
    status, printed, _ = run(archive, "--without-key")

    assert status == 0
    assert printed.startswith("intact (signatures not_checked): ")
    assert json.loads(run(archive, "--without-key", "--json")[1])["signatures"] == "not_checked"
    status, printed, errors = run(archive, "--without-key", "--public-key", key)
    assert (status, printed) == (2, "")
    assert "--without-key does not go with --public-key" in errors


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_without_a_checkpoint_nothing_was_checked(
    run: Run, tmp_path: Path, key: Path, ledger: Ledger, keep: int
) -> None:
    """With a key and no checkpoint, or nothing at all, the exit status is 2: neither yes nor no."""
    status, printed, _ = run(archive_of(tmp_path, ledger.records[:keep]), "--public-key", key)

    assert status == 2
    assert printed.startswith("not_checked: ")


def test_several_keys_may_be_given(run: Run, tmp_path: Path, key: Path, ledger: Ledger) -> None:
    """A ledger whose key was rotated verifies under any of its keys, and under all of them."""
    ledger.rotate(1, FOREIGN_KEY)
    ledger.checkpoint(1)
    archive = archive_of(tmp_path, ledger.records)
    other = file_of(tmp_path, "other.pem", public_pem(FOREIGN_KEY))

    for keys in ([key], [other], [key, other]):
        assert run(archive, *(argument for one in keys for argument in ("--public-key", one)))[0] == 0


@pytest.mark.stores(*BOTH)
def test_files_folders_exports_and_databases_are_one_copy(run: Run, tmp_path: Path, key: Path, store: Store) -> None:
    """What is in none of the copies alone is in all of them together."""
    ledger = Ledger()
    for stream in (7, 8, 7):
        ledger.append(stream)
        ledger.checkpoint(7)
    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    lane.close()
    bodies = file_of(tmp_path, "bodies.jsonl", "".join(f"{record.text}\n" for record in ledger.records[:3]))
    folder = archive_of(tmp_path, ledger.records[3:6]).parent
    export = file_of(tmp_path, "x.json", "".join(json.dumps({"_msg": one.text}) + "\n" for one in ledger.records[6:]))
    arguments = (bodies, folder, export, "--database", store.database, "--public-key", key, "--json")

    status, printed, _ = run(*arguments)

    report = json.loads(printed)
    assert (status, report["findings"]) == (0, [])
    assert report["records"] == len(ledger.records) + 3
    assert report["streams"] == 3


def test_the_archive_of_the_settings_is_the_default(
    run: Run, archive: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any path the folder of the embedded archive is verified."""
    monkeypatch.setenv("AUDITRACE_AUDIT_ARCHIVE", str(archive))

    assert run("--public-key", key)[1].startswith("intact: ")


def test_a_part_of_the_ledger_is_verified_alone(run: Run, tmp_path: Path, key: Path, ledger: Ledger) -> None:
    """Since a time, and of a stream: what is trusted for it is named."""
    second = ledger.checkpoints()[1]
    archive = archive_of(tmp_path, ledger.records[ledger.records.index(second) :])
    assert run(archive, "--public-key", key)[0] == 1

    status, printed, _ = run(archive, "--public-key", key, "--since", second.body["observed_timestamp"])
    assert status == 0
    assert f"verified behind checkpoint 2 of {second.body['observed_timestamp']}" in printed
    assert run(archive, "--public-key", key, "--since", "-99999d") == run(
        archive, "--public-key", key, "--since=-99999d"
    )
    since = ("--since", "2026-01-01T01:00:00+01:00", "--stream", stream_id(1), "--json")
    report = json.loads(run(archive, "--public-key", key, *since)[1])
    assert report["window"] == {
        "since": "2026-01-01T00:00:00.000000000Z",
        "start": {"number": 2, "hash": second.hash, "time": second.body["observed_timestamp"]},
        "streams": [stream_id(1)],
        "behind": None,
    }
    window = json.loads(run(archive, "--public-key", key, "--behind", 2, "--json")[1])["window"]
    assert (window["since"], window["behind"], window["start"]["number"]) == (None, 2, 2)


@pytest.mark.parametrize("number", ["0", "-1", "x", "1:2"])
def test_a_window_begins_behind_a_number(run: Run, archive: Path, number: str) -> None:
    """What is no number of a checkpoint, or comes with a time, is refused in one line."""
    status, _, complaint = run(archive, f"--behind={number}")
    assert status == 2
    assert "--behind: " in complaint


def test_a_file_may_hold_all_keys_of_a_ledger(run: Run, tmp_path: Path) -> None:
    """As `auditrace keys public --all` prints them: each verifies the checkpoints of its time."""
    made = Ledger(minutes_between=0.1)
    made.append(1)
    made.checkpoint(1)
    made.rotate(1, FOREIGN_KEY)
    made.append(1)
    keys = file_of(tmp_path, "all.pem", public_pem(KEY) + public_pem(FOREIGN_KEY))
    archive = archive_of(tmp_path, made.records)

    assert run(archive, "--public-key", keys)[0] == 0
    new = file_of(tmp_path, "new.pem", public_pem(FOREIGN_KEY))
    assert run(archive, "--public-key", new)[0] == 1


def test_the_end_of_a_copy_is_compared_with_what_is_known(run: Run, archive: Path, key: Path, ledger: Ledger) -> None:
    """A known checkpoint, the age of the last one, and the tail: each makes a copy that is too short a broken one."""
    last = ledger.checkpoints()[-1]
    asked = ("--public-key", key, "--json", archive)

    def codes(*arguments: object) -> list[str]:
        return [finding["code"] for finding in json.loads(run(*asked, *arguments)[1])["findings"]]

    assert codes("--at-least", f"3:{last.hash}") == []
    assert codes("--at-least", f"4:{'0' * 64}") == ["checkpoint_stale"]
    assert codes("--at-least", f"3:{'0' * 64}") == ["checkpoint_number_reused"]
    age_ms = (now_ns() - int(last.log_record()["observedTimeUnixNano"])) // 1_000_000
    assert codes("--max-age", f"{age_ms // 86_400_000 + 1}d") == []
    assert codes("--max-age", "5m") == ["checkpoint_stale"]
    assert codes("--require-anchored") == []
    ledger.append(1)
    archive_of(archive.parent.parent, ledger.records)
    assert codes("--require-anchored") == ["record_unanchored"]
    assert codes() == []


@pytest.mark.parametrize(
    "shape",
    [
        lambda receipts: receipts[0],
        lambda receipts: receipts,
        lambda receipts: {"id": "job-1", "status": "created", "audit": receipts[0]},
        lambda receipts: {"receipts": receipts},
        lambda receipts: {"status": 409, "audit_record_id": receipts[0]["record_id"], "audit": receipts[0]},
    ],
)
def test_a_receipt_proves_its_record_missing(
    run: Run, tmp_path: Path, ledger: Ledger, shape: Callable[[list[dict[str, Any]]], Any]
) -> None:
    """A receipt in any answer of the API is looked up, and its record missed if it is not in the copy."""
    record = ledger.records[3]
    receipt = file_of(tmp_path, "receipt.json", json.dumps(shape([receipt_of(record)])))
    whole = archive_of(tmp_path, ledger.records)
    assert run(whole, "--without-key", "--receipt", receipt)[0] == 0

    cut = archive_of(tmp_path, ledger.records[:3], "cut.jsonl")
    status, printed, _ = run(cut, "--without-key", "--receipt", receipt)
    assert status == 1
    assert f"receipt_missing {record.stream} {record.number}: " in printed


@pytest.mark.stores(*BOTH)
def test_a_refusal_of_the_api_is_a_receipt(run: Run, tmp_path: Path, key: Path, api: ApiUnderTest) -> None:
    """Who was refused keeps the answer as it came, and finds the record of the refusal in any copy by it."""
    answer = api.someone().post("/v1/jobs", {"template": "none"})
    refusal = file_of(tmp_path, "refusal.json", answer.text)
    assert api.checkpoints.hold()
    assert api.checkpoints.write() is not None

    status, printed, _ = run("--database", api.store.database, "--public-key", key, "--receipt", refusal, "--json")

    (receipt,) = json.loads(printed)["receipts"]
    assert (status, receipt["record_id"]) == (0, answer.json()["audit_record_id"])
    assert receipt["checkpoint"]["number"] == 1
    cut = file_of(tmp_path, "cut.jsonl", f"{api.store.archive()[0]}\n")
    assert "receipt_missing" in run(cut, "--public-key", key, "--receipt", refusal)[1]


def test_receipts_may_be_many(run: Run, tmp_path: Path, ledger: Ledger) -> None:
    """A file of one receipt a line, and several files, are all looked up."""
    lines = file_of(tmp_path, "a", "".join(json.dumps(receipt_of(record)) + "\n\n" for record in ledger.records[:5]))
    one = file_of(tmp_path, "b", json.dumps(receipt_of(ledger.records[5]), indent=2))
    cut = archive_of(tmp_path, ledger.records[:2], "cut.jsonl")

    _, printed, _ = run(cut, "--without-key", "--receipt", lines, "--receipt", one, "--json")

    findings = json.loads(printed)["findings"]
    assert [finding["code"] for finding in findings].count("receipt_missing") == 4


@pytest.mark.stores(*BOTH)
def test_two_copies_are_compared(run: Run, tmp_path: Path, archive: Path, store: Store, ledger: Ledger) -> None:
    """What one copy lacks is named, with the exit status 1; copies of the same records have 0, whatever their form."""
    bodies = file_of(tmp_path, "bodies", "".join(f"{record.text}\n" for record in reversed(ledger.records)))
    assert run("--compare", archive, bodies)[0] == 0
    fewer = archive_of(tmp_path, ledger.records[:-2], "fewer.jsonl")
    status, printed, _ = run("--compare", archive.parent, fewer)
    assert status == 1
    assert f"only in {archive.parent}: {stream_id(1)} " in printed

    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.fact())).result()
    lane.close()
    url = store.database
    delivered = file_of(tmp_path, "delivered.jsonl", "".join(f"{line}\n" for line in store.archive()))
    assert run("--compare", url, delivered)[0] == 0
    report = json.loads(run("--compare", url, archive, "--json")[1])
    assert report["verdict"] == "different"
    assert {difference["only_in"] for difference in report["differences"]} == {url.partition("?")[0], str(archive)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--without-key", "missing.jsonl"], "missing.jsonl does not exist: name the file or the folder of a copy"),
        (["--public-key", "missing.pem", "."], "the public key missing.pem cannot be read"),
        (
            ["--since", "yesterday", "."],
            "--since: 'yesterday' is not a time: write 2026-11-30 (UTC), 2026-11-30T08:00:00Z",
        ),
        (["--max-age", "5", "."], "--max-age: '5' is not a duration"),
        (["--at-least", "3", "."], "--at-least: '3' is not a checkpoint: write its number, a colon and its hash"),
        (["--at-least", f"0:{'0' * 64}", "."], "is not a checkpoint"),
        (["--receipt", "missing.json", "."], "the receipt missing.json cannot be read"),
        (["--compare", "missing", "."], "missing does not exist"),
        (["--compare", ".", ".", "other"], "PATH does not go with --compare"),
        (["--compare", ".", ".", "--public-key", "x"], "--public-key does not go with --compare"),
        (["--compare", ".", ".", "--without-key"], "--without-key does not go with --compare"),
        (["--without-key", "--database", "sqlite:///missing.db"], "there is no ledger at sqlite:///missing.db"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_exit_status_2(
    run: Run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong arguments and files that are not there are told, with what to do, and nothing is verified."""
    monkeypatch.chdir(tmp_path)
    status, printed, errors = run(*arguments)

    assert (status, printed) == (2, "")
    assert message in errors


def test_a_database_is_no_archive(run: Run, store: SqliteStore) -> None:
    """A database given as a path is neither intact nor broken: what to write instead is said."""
    status, printed, errors = run(store.path, "--without-key")

    assert (status, printed) == (2, "")
    assert f"write --database sqlite:///{store.path}" in errors


def test_a_folder_with_a_database_is_no_archive(run: Run, tmp_path: Path, store: SqliteStore, archive: Path) -> None:
    """The folder above the archive, which holds the database too, is not called broken: what to write is said."""
    status, printed, errors = run(store.path.parent, archive, "--without-key", "--json")

    assert (status, printed) == (2, "")
    (line,) = errors.splitlines()
    assert f"{store.path} is a database: write --database sqlite:///{store.path}, or name the archive's" in line


def test_a_database_is_compared_by_its_url(run: Run, store: SqliteStore, archive: Path) -> None:
    """To compare a database, its URL stands in the place of the path; --database does not go with --compare."""
    status, printed, errors = run("--compare", archive, store.path)

    assert (status, printed) == (2, "")
    (line,) = errors.splitlines()
    assert line.endswith(f"{store.path} is a database: write sqlite:///{store.path}")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_receipt_is_no_copy(run: Run, tmp_path: Path, api: ApiUnderTest, indent: int | None) -> None:
    """An answer of the API given as a copy is not called broken: it goes with --receipt."""
    answer = api.someone().post("/v1/jobs", {"template": "missing"}).json()
    file = file_of(tmp_path, "folder/answer.json", json.dumps(answer, indent=indent))
    for path in (file, file.parent):
        status, printed, errors = run(path, "--without-key", "--json")

        assert (status, printed) == (2, "")
        (line,) = errors.splitlines()
        assert f"{file} is an answer of the API with a receipt, not a copy" in line
        assert "--receipt" in line


def test_an_error_that_was_saved_as_an_export_is_no_copy(run: Run, tmp_path: Path, api: ApiUnderTest) -> None:
    """What the API answers to a wrong key, saved as an export, is not called broken: what it says is shown."""
    answer = api.someone(VIEWER).get("/v1/audit/export").json()
    answer |= {"audit": None, "detail": f"{answer['detail']}\x1b[2J"}
    file = file_of(tmp_path, "export.jsonl", json.dumps(answer))
    status, printed, errors = run(file, "--without-key", "--json")

    assert (status, printed) == (2, "")
    (line,) = errors.splitlines()
    assert f"{file} is an error that the API answered, not a copy: this needs the role auditor" in line
    assert "\x1b" not in errors


def test_a_copy_without_a_record_says_so(run: Run, tmp_path: Path, archive: Path, key: Path) -> None:
    """An empty or wrong folder, and a stream that is not there, are told in a sentence."""
    (tmp_path / "empty").mkdir()
    status, printed, _ = run(tmp_path / "empty", "--public-key", key)
    assert status == 2
    assert "no record was found: is this the file or the folder of the copy?" in printed
    status, printed, _ = run(archive, "--public-key", key, "--stream", "missing")
    assert status == 2
    assert "no record was found of stream missing" in printed
    assert "no record was found" not in run(archive, "--public-key", key)[1]


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_copy_that_ends_before_where_to_begin_is_not_intact(run: Run, archive: Path, key: Path, form: str) -> None:
    """A copy that was cut short has nothing behind the checkpoint: whoever asks for it gets no good verdict."""
    status, printed, errors = run(archive, "--public-key", key, "--behind", "100", *filter(None, [form]))
    assert (status, printed) == (2, "")
    assert re.search(r"does not go as far as checkpoint 100: its last one is \d+\n", errors)


def test_a_proof_is_not_compared(run: Run, tmp_path: Path, archive: Path, api: ApiUnderTest) -> None:
    """A proof beside another copy is refused, and not read as a copy without records."""
    proof = {"record": {}, "checkpoint": None, "tip": None, "hashes": []}
    file = file_of(tmp_path, "proof.json", json.dumps(proof))
    status, printed, errors = run("--compare", archive, file)

    assert (status, printed) == (2, "")
    assert f"{file} is the proof of one record: verify it by itself" in errors


def test_all_wrong_arguments_are_told_at_once(run: Run) -> None:
    """Nobody has to find their mistakes one by one."""
    _, _, errors = run(".", "--without-key", "--since", "x", "--max-age", "x", "--at-least", "x")

    assert len(errors.splitlines()) == 3


@pytest.mark.parametrize("text", ["", "no key", public_pem(KEY)[:60]])
def test_what_is_no_public_key_is_refused(run: Run, tmp_path: Path, archive: Path, text: str) -> None:
    """A file that holds no public key is never a key under which nothing holds."""
    status, _, errors = run(archive, "--public-key", file_of(tmp_path, "key.pem", text))

    assert status == 2
    assert "is not a PEM public key: make one with `auditrace keys public`" in errors


def test_a_key_of_another_kind_is_refused(run: Run, tmp_path: Path, archive: Path) -> None:
    """Checkpoints are signed with Ed25519 only."""
    other = generate_private_key(65537, 1024).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    assert "is not an Ed25519 public key" in run(archive, "--public-key", file_of(tmp_path, "key.pem", pem))[2]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"record_id": "a"}', "no JSON", '{"a": 1}\n{"b": 2'])
def test_a_file_without_a_receipt_is_refused(run: Run, tmp_path: Path, archive: Path, text: str) -> None:
    """A file that was meant to hold a receipt and does not is never taken for none to check."""
    status, _, errors = run(archive, "--without-key", "--receipt", file_of(tmp_path, "receipt.json", text))

    assert status == 2
    assert "receipt" in errors


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequence_number": 0},
        {"sequence_number": -1},
        {"record_hash": "x"},
        {"record_hash": "A" * 64},
        {"stream_id": "mine"},
        {"record_id": "\x1b[2J\n"},
    ],
)
def test_a_receipt_that_no_record_can_have_is_refused(
    run: Run, tmp_path: Path, archive: Path, ledger: Ledger, wrong: dict[str, Any]
) -> None:
    """It was in no copy ever: "intact" would be said of a copy that lacks what was asked for."""
    receipt = file_of(tmp_path, "receipt.json", json.dumps(receipt_of(ledger.records[0]) | wrong))
    status, printed, errors = run(archive, "--without-key", "--receipt", receipt)

    assert (status, printed, len(errors.splitlines())) == (2, "", 1)
    assert "holds a receipt that no service gave" in errors
    assert "\x1b" not in errors


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "answer",
    [
        lambda receipt: receipt,
        lambda receipt: {"id": "job-1", "status": "created", "audit": receipt},
        lambda receipt: {"status": 409, "audit_record_id": receipt["record_id"], "audit": receipt},
        lambda _: {"status": 401, "audit_record_id": None, "audit": None},
        lambda receipt: {"records": [receipt], "next_cursor": None},
    ],
)
def test_an_answer_of_the_api_is_no_copy_that_is_broken(
    run: Run, tmp_path: Path, ledger: Ledger, answer: Callable[[dict[str, Any]], Any], indent: int | None
) -> None:
    """Whoever verifies a receipt as if it were a copy is told what to do, and gets no alarm."""
    file = file_of(tmp_path, "answer.json", json.dumps(answer(receipt_of(ledger.records[0])), indent=indent))
    status, printed, errors = run(file, "--without-key")

    assert (status, printed, len(errors.splitlines())) == (2, "", 1)
    assert re.search(rf"{file} is .*\bAPI\b.*, not a copy", errors)


def test_a_refusal_without_a_receipt_says_where_to_get_it(
    run: Run, tmp_path: Path, archive: Path, ledger: Ledger
) -> None:
    """A refusal of an older version names its record only; beside receipts it is not passed over either."""
    refusal = {"status": 409, "audit_record_id": ledger.records[2].record_id}
    both = file_of(tmp_path, "both", f"{json.dumps(receipt_of(ledger.records[0]))}\n{json.dumps(refusal)}\n")
    for file in (file_of(tmp_path, "one", json.dumps(refusal)), both):
        status, printed, errors = run(archive, "--without-key", "--receipt", file)
        assert (status, printed) == (2, "")
        (line,) = errors.splitlines()
        assert "names its record and is no receipt" in line
        assert f"/v1/audit/records/{ledger.records[2].record_id}" in line
    hostile = file_of(tmp_path, "hostile", json.dumps({"audit_record_id": "\x1b[2J\n"}))
    assert "\x1b" not in run(archive, "--without-key", "--receipt", hostile)[2]


def test_a_receipt_outside_of_the_streams_is_refused(run: Run, tmp_path: Path, archive: Path, ledger: Ledger) -> None:
    """A receipt that cannot be looked up in the part that is verified is an error, not an answer."""
    receipt = file_of(tmp_path, "receipt.json", json.dumps(receipt_of(ledger.records[0])))
    status, _, errors = run(archive, "--without-key", "--stream", stream_id(2), "--receipt", receipt)

    assert status == 2
    assert f"--stream leaves out {stream_id(1)}, but a receipt of that stream is given" in errors


def test_a_file_that_cannot_be_read_is_an_error(run: Run, tmp_path: Path) -> None:
    """A copy that could not be read is never verified without it."""
    archive = tmp_path / "audit.jsonl"
    archive.symlink_to(archive)

    status, _, errors = run(archive, "--without-key")
    assert status == 2
    assert str(archive) in errors


def test_a_full_disk_is_told_with_what_to_do(run: Run, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the folder for temporary files is full the message says which it is and how to choose another."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sources.Intake, "take", full)
    status, _, errors = run(archive, "--without-key")

    assert status == 2
    assert f"there is no room in {tempfile.gettempdir()}" in errors
    assert "set TMPDIR" in errors


class Terminal(io.StringIO):
    """Standard error, as a person looks at it."""

    def isatty(self) -> bool:
        """Tell that it is a terminal."""
        return True


def test_a_long_reading_shows_how_far_it_is(run: Run, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal a bar grows while parts are read, and is gone in the end; elsewhere nothing is written."""
    monkeypatch.setattr(progress, "_LONG_BYTES", 1)
    for least in ("_LEAST_PART_BYTES", "_MOST_PART_BYTES"):
        monkeypatch.setattr(sources, least, 4_000)
    assert run(archive, "--without-key")[2] == ""

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run(archive, "--without-key")[0] == 0
    shown = terminal.getvalue().split("\r")
    assert len(shown) > 3
    assert "] 100 %" in shown[-2]
    assert shown[-1] == "\x1b[K"


CSV_HEAD = "record_id,stream_id,sequence_number,record_hash,event_name\r\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("export.csv", f"{CSV_HEAD}1,2,3,4,5\r\n"),
        ("export.txt", f"{CSV_HEAD}1,2,3,4,5\r\n"),
        ("from-a-spreadsheet", '\ufeff"record_id";"stream_id";"sequence_number";"record_hash"\n'),
        ("of-another-tool.csv", "time,message\n1,{}\n"),
        ("folder/export.csv", CSV_HEAD),
    ],
)
def test_a_table_is_not_verified_and_the_exports_that_can_be_are_named(
    run: Run, tmp_path: Path, name: str, text: str
) -> None:
    """CSV holds no bodies: nothing of it is called broken or intact, and the forms that can be verified are named."""
    table = file_of(tmp_path, name, text)
    status, printed, errors = run(tmp_path / name.split("/")[0], "--without-key", "--json")

    assert (status, printed) == (2, "")
    (line,) = errors.splitlines()
    assert f"{table} is a table (CSV), which cannot be verified" in line
    assert "otlp-json or jsonl" in line
    assert run("--compare", table, tmp_path)[:2] == (2, "")


def test_lines_of_json_are_no_table_whatever_they_are_called(
    run: Run, tmp_path: Path, key: Path, ledger: Ledger
) -> None:
    """What a file holds counts, and not its name."""
    archive = archive_of(tmp_path, ledger.records, "audit.csv")
    assert run(archive, "--public-key", key)[0] == 0


def test_json_is_one_document_or_nothing(run: Run, tmp_path: Path, archive: Path, key: Path, ledger: Ledger) -> None:
    """For each exit status standard output holds one JSON document; where nothing was verified it holds nothing."""
    cut = archive_of(tmp_path, ledger.records[1:], "cut.jsonl")
    answers = {
        run(archive, "--public-key", key, "--json")[:2]: 0,
        run(cut, "--public-key", key, "--json")[:2]: 1,
        run(archive_of(tmp_path, [], "empty.jsonl"), "--public-key", key, "--json")[:2]: 2,
        run("--compare", archive, cut, "--json")[:2]: 1,
    }
    for (status, printed), expected in answers.items():
        assert status == expected
        assert json.loads(printed)["verdict"]
    for wrong in (
        (archive, "--json"),
        (archive, "--json", "--without-key", "--since", "yesterday"),
        (tmp_path / "missing", "--json", "--without-key"),
        (archive, "--json", "--public-key", archive),
        (archive, "--json", "--without-key", "--receipt", archive),
        (archive, "--json", "--compare", archive, archive),
        ("--json", "--without-key", "--database", "sqlite:///missing.db"),
        ("--json", "--without-key", "--database", "mysql://x"),
        ("--json", "--compare", "sqlite:///missing.db", archive),
    ):
        status, printed, errors = run(*wrong)
        assert (status, printed) == (2, ""), wrong
        assert errors.startswith("auditrace: "), wrong
