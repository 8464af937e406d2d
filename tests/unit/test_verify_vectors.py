"""The published vectors: copies of one ledger, intact and tampered with, and what a verifier must say of each."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from telemetry.audit.verify import read_copy, verify

VECTORS = Path(__file__).parents[1] / "vectors"
EXPECTED = json.loads((VECTORS / "expected.json").read_text())


def public_key() -> Ed25519PublicKey:
    """Return the public key of the vectors."""
    key = load_pem_public_key((VECTORS / "public.pem").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    return key


@pytest.mark.parametrize("name", EXPECTED)
def test_a_vector_gives_exactly_its_verdict_codes_and_counts(name: str) -> None:
    """Every vector gives exactly the verdict, the finding codes and the counts that are published with it."""
    report = verify(read_copy([VECTORS / name]), public_keys=[public_key()])

    assert {
        "verdict": report.verdict,
        "findings": sorted({finding.code for finding in report.findings}),
        "records": report.records,
        "streams": report.streams,
        "checkpoints": report.checkpoints,
        "unanchored": report.unanchored,
    } == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_without_a_public_key_the_report_says_that_signatures_were_not_checked(name: str) -> None:
    """Without a public key the other steps give the same findings, and the report and its summary say what is left."""
    report = verify(read_copy([VECTORS / name]))

    assert sorted({finding.code for finding in report.findings}) == EXPECTED[name]["findings"]
    assert report.verdict == EXPECTED[name]["verdict"]
    assert report.signatures == "not_checked"
    assert "signatures not checked" in report.summary()


def test_findings_name_the_record_that_was_changed() -> None:
    """A finding names stream, number and record id of the record it is about, and the line that shows it."""
    (finding,) = verify(read_copy([VECTORS / "index_edited.otlp.jsonl"]), public_keys=[public_key()]).findings

    assert finding.code == "index_differs"
    assert finding.stream_id == "e7507070-ef32-44b3-846d-9f04952e23ea"
    assert finding.number == 2
    assert finding.record_id == "019b76da-a827-780d-b834-4b5ce437a83a"
    assert finding.place == f"{VECTORS / 'index_edited.otlp.jsonl'}:3"


def test_the_report_names_the_last_checkpoint() -> None:
    """The report names the checkpoint up to which it holds, to be compared with one known from elsewhere."""
    last = verify(read_copy([VECTORS / "intact.otlp.jsonl"]), public_keys=[public_key()]).last_checkpoint

    assert last is not None
    assert last.number == 3
    assert last.hash == "c5388d8d54336cf65d8f0475b7d81b0bbb4a7911272944fae256529ff446d7ff"
    assert last.time == "2026-01-01T00:00:00.623700433Z"
