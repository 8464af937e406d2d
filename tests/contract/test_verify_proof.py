"""`auditrace verify` on the proof of a record, as the API of each store answers it: nothing in it can be changed."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import main
from service.roles import OPERATOR
from telemetry import names
from telemetry.audit.canonical import canonical_bytes, sha256_hex
from telemetry.audit.checkpoint import leaves
from telemetry.audit.signer import Signer
from telemetry.audit.verify import proof_in, verify_proof
from tests.support.api import ApiUnderTest
from tests.support.both_stores import BOTH
from tests.support.ledger_maker import FOREIGN_KEY, KEY, public_pem

pytestmark = pytest.mark.stores(*BOTH)

Proof = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]

NOT_PROVEN = {("record", "delivery"), ("record", "links"), ("record", "delivery"), ("checkpoint", "record", "links")}
"""What a proof says that is no part of a record: how far it was delivered, and addresses."""
FINGERPRINT, FOREIGN = Signer(KEY).fingerprint, Signer(FOREIGN_KEY).fingerprint


@pytest.fixture(scope="module")
def proofs(shared_api: ApiUnderTest) -> tuple[Proof, Proof]:
    """The proof of a record among several before a checkpoint covers it, and after."""
    api = shared_api
    operator = api.someone(OPERATOR)
    receipts = [operator.new_job()["audit"] for _ in range(4)]
    path = f"/v1/audit/records/{receipts[1]['record_id']}/proof"
    early = operator.get(path).json()
    assert api.checkpoints.hold()
    assert api.checkpoints.write() is not None
    return early, operator.get(path).json()


@pytest.fixture
def early(proofs: tuple[Proof, Proof]) -> Proof:
    """The proof of a record that no checkpoint covers yet."""
    return copy.deepcopy(proofs[0])


@pytest.fixture
def proof(proofs: tuple[Proof, Proof]) -> Proof:
    """The proof of a record that a checkpoint covers."""
    return copy.deepcopy(proofs[1])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Write a proof to a file, run `auditrace verify` on it, and return the exit status and what it printed."""
    (tmp_path / "public.pem").write_text(public_pem(KEY))
    (tmp_path / "foreign.pem").write_text(public_pem(FOREIGN_KEY))

    def command(document: Proof, *arguments: object, key: str = "public", indent: int | None = None) -> Any:
        (tmp_path / "proof.json").write_text(json.dumps(document, indent=indent))
        keys = ["--public-key", tmp_path / f"{key}.pem"] if key else []
        status = main(["verify", *map(str, (*arguments, tmp_path / "proof.json", *keys))])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


@pytest.mark.parametrize("indent", [None, 2])
def test_a_proof_is_verified_with_the_public_key_alone(run: Run, proof: Proof, indent: int | None) -> None:
    """The answer names the record, its place in the ledger, the checkpoint with its time, and the key that signed."""
    record, checkpoint = proof["record"], proof["checkpoint"]
    status, printed, _ = run(proof, indent=indent)

    assert status == 0
    assert printed.startswith("intact: ")
    assert f"record: {record['record_id']}, job.create, sealed " in printed
    assert f"number {record['sequence_number']} of stream {record['stream_id']}" in printed
    time = json.loads(checkpoint["record"]["body"])["observed_timestamp"]
    by = f"signed by {FINGERPRINT}"
    assert f"covered by checkpoint 1 of {time}, hash {checkpoint['record']['record_hash']}, {by}" in printed
    report = json.loads(run(proof, "--json", indent=indent)[1])
    assert (report["verdict"], report["signatures"], report["findings"]) == ("intact", "checked", [])
    assert report["record"]["hash"] == record["record_hash"]
    assert report["checkpoint"] == {"number": 1, "hash": checkpoint["record"]["record_hash"], "time": time}
    assert (report["signed_by"], report["keys"], report["other_key"]) == (FINGERPRINT, [FINGERPRINT], None)


def test_a_record_that_no_checkpoint_covers_is_not_proven_yet(run: Run, early: Proof) -> None:
    """Before the next checkpoint a proof is neither intact nor broken, and what to do is said."""
    status, printed, _ = run(early)

    assert status == 2
    assert printed.startswith(
        "not_checked: not yet anchored, no checkpoint covers this record: ask for its proof again"
    )
    early["record"]["event_name"] = "job.cancel"
    assert run(early)[0] == 1


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value within a document."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield (*path, key)
        yield from places_in(member, (*path, key))


def others_than(value: Any) -> Iterator[Any]:
    """Yield values that differ from one, some of them by little."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, -value)
        case str():
            yield from ("", f"{value} ", value[:-1] + chr(ord(value[-1:] or "a") ^ 1))
        case list():
            yield from ([], [*value, *value[-1:]], value[::-1])
        case dict():
            yield from ({}, {**value, "added": 1})
        case _:
            pass
    yield from (None, 5, "x", [], {})


def test_each_single_change_to_a_proof_is_found(proof: Proof) -> None:
    """Every value changed, and every member left out: none of it is taken for intact."""
    tried = 0
    for path in places_in(proof):
        if any(path[: len(one)] == one for one in NOT_PROVEN) or path[-1] in {"delivery", "links"}:
            continue
        for other in [*others_than(value_at(proof, path)), ...]:
            changed = copy.deepcopy(proof)
            *before, last = path
            holder = value_at(changed, before)
            if other is ...:
                holder.pop(last)
            elif holder[last] == other and type(holder[last]) is type(other):
                continue
            else:
                holder[last] = other
            if is_not_recognised(changed) or is_additional(path, other):
                continue
            report = verify_proof(json.dumps(changed).encode(), [KEY.public_key()])
            tried += 1
            assert report.verdict == "broken", (path, other, report)
            assert report.findings, (path, other)
            assert report.summary().startswith("broken: this proof proves nothing")
    assert tried > 500


def value_at(value: Any, path: Any) -> Any:
    """Return the value at a path."""
    for key in path:
        value = value[key]
    return value


def is_additional(path: tuple[Any, ...], other: Any) -> bool:
    """Tell whether a change only adds a member to the answer, as a later version of the API may."""
    return (
        isinstance(other, dict)
        and "added" in other
        and path in {("record",), ("checkpoint",), ("checkpoint", "record")}
    )


def is_not_recognised(document: Proof) -> bool:
    """Tell whether nothing is left by which it is a proof."""
    return "record" not in document


def test_parts_of_two_proofs_are_no_proof(proof: Proof, shared_api: ApiUnderTest) -> None:
    """A record of one proof with the checkpoint of another one is found, though each part is genuine."""
    client = shared_api.someone(OPERATOR)
    receipt = client.new_job()["audit"]
    assert shared_api.checkpoints.write() is not None
    other = client.get(f"/v1/audit/records/{receipt['record_id']}/proof").json()
    assert verify_proof(json.dumps(other).encode(), [KEY.public_key()]).verdict == "intact"
    for part in ("record", "checkpoint", "tip", "hashes"):
        report = verify_proof(json.dumps({**proof, part: other[part]}).encode(), [KEY.public_key()])
        assert report.verdict == "broken", part


def test_a_forgery_is_found_however_far_it_is_carried(proof: Proof) -> None:
    """Who edits the record, and then each hash that depends on it, gets as far as the signature, and no further."""

    def codes() -> set[str]:
        report = verify_proof(json.dumps(proof).encode(), [KEY.public_key()])
        assert report.verdict == "broken"
        return {finding.code for finding in report.findings}

    record, checkpoint = proof["record"], proof["checkpoint"]["record"]
    body = json.loads(record["body"])
    body["attributes"][names.AUDIT_ACTOR_ID] = "eve"
    record |= {"attributes": body["attributes"], **sealed(body)}
    assert codes() == {"tip_hash"}
    at = record["sequence_number"] - proof["tip"]["from"]
    proof["hashes"][at] = record["record_hash"]
    assert codes() == {"leaves"}
    stated = json.loads(checkpoint["body"])
    tips = stated["attributes"][names.AUDITRACE_CHECKPOINT_TIPS]
    tip = tips[tips.index(proof["tip"])]
    tip["leaves"] = leaves(map(bytes.fromhex, proof["hashes"]))
    proof["tip"] = tip
    assert codes() == {"leaves", "proof_differs"}
    checkpoint |= {"attributes": stated["attributes"], **sealed(stated)}
    assert codes() == {"signature"}


def sealed(body: dict[str, Any]) -> dict[str, str]:
    """Return the text of a body, and its hash."""
    text = canonical_bytes(body)
    return {"body": text.decode(), "record_hash": sha256_hex(text)}


def test_another_key_is_named_and_is_no_alarm(run: Run, proof: Proof) -> None:
    """A proof that another key signed, as before a rotation, is not checked: both keys are named, and how to get it."""
    status, printed, _ = run(proof, key="foreign")

    assert status == 2
    assert printed.startswith(f"not_checked: the checkpoint is signed by {FINGERPRINT}, you gave {FOREIGN}: ")
    assert "`auditrace keys public --all`" in printed
    report = json.loads(run(proof, "--json", key="foreign")[1])
    assert (report["verdict"], report["other_key"], report["signed_by"]) == ("not_checked", FINGERPRINT, None)
    both = [FOREIGN_KEY.public_key(), KEY.public_key()]
    assert verify_proof(json.dumps(proof).encode(), both).verdict == "intact"


def test_without_a_key_a_proof_agrees_with_itself_only(run: Run, proof: Proof) -> None:
    """As of a copy, the verdict says that no signature was checked, and no key is no default."""
    assert run(proof, key="")[:2] == (2, "")
    status, printed, _ = run(proof, "--without-key", key="")
    assert status == 0
    assert printed.startswith("intact (signatures not_checked): ")
    assert "may have made it up" in printed


@pytest.mark.parametrize(
    "arguments",
    [["--since", "2026-01-01"], ["--require-anchored"], ["--database", "sqlite:///ledger.db"], ["--max-age", "5m"]],
)
def test_a_proof_is_verified_by_itself(run: Run, proof: Proof, arguments: list[str], tmp_path: Path) -> None:
    """What is asked of copies is refused for a proof, and so are other paths beside it."""
    status, printed, errors = run(proof, *arguments)
    assert (status, printed) == (2, "")
    assert f"{arguments[0]} does not go with {tmp_path / 'proof.json'}, which is the proof of one record" in errors
    status, printed, errors = run(proof, tmp_path / "public.pem")
    assert (status, printed) == (2, "")
    assert "without another PATH" in errors


def test_what_a_proof_holds_does_not_reach_the_terminal_raw(run: Run, proof: Proof) -> None:
    """Control characters are shown as escapes: whoever made it may not write to the reader's terminal."""
    proof["record"]["record_id"] = "\x1b[2J"
    proof["checkpoint"]["certificate"] = "\x1b[2J"
    for key in ("public", "foreign"):
        assert "\x1b" not in run(proof, key=key)[1]


def test_other_documents_are_no_proof(tmp_path: Path, proof: Proof) -> None:
    """Records, receipts, archives and what is no JSON are told from proofs by what they hold."""
    for number, text in enumerate(
        ("", "{", "[1]", "{\n", json.dumps(proof["record"]), '{"record": {}}', '{"a":1}\n{}')
    ):
        file = tmp_path / str(number)
        file.write_text(text)
        assert proof_in(file) is None
    assert proof_in(tmp_path) is None
