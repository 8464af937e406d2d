"""Records of several format versions stand in one ledger; each has what its version asks for."""

from pathlib import Path
from typing import Any

import pytest

from telemetry.audit.verify import read_copy, verify
from tests.support import small_verifier
from tests.support.ledger_maker import KEY, Ledger

STATED = {"auditrace.actor.issuer": "https://issuer.example"}


def _findings(ledger: Ledger, folder: Path) -> set[tuple[str, str | None, int | None]]:
    """Return what both verifiers find in a ledger with a checkpoint over everything; they must say the same."""
    ledger.checkpoint(1)
    copy = folder / "copy.jsonl"
    copy.write_text("".join(f"{record.line()}\n" for record in ledger.records))
    report = verify(read_copy([copy]), public_keys=[KEY.public_key()])
    found = {(finding.code, finding.stream_id, finding.number) for finding in report.findings}
    assert found == small_verifier.check(copy.read_text(), KEY.public_key())
    return found


def test_records_of_both_versions_are_one_intact_ledger(tmp_path: Path) -> None:
    """A stream that an older version began, and a newer one continues, is intact for both verifiers."""
    ledger = Ledger(version="1.0.0")
    ledger.append(1)
    ledger.checkpoint(1)
    ledger.version = "1.1.0"
    ledger.append(1)
    ledger.append(2)
    assert _findings(ledger, tmp_path) == set()


@pytest.mark.parametrize(
    ("more", "codes"),
    [
        pytest.param({}, set(), id="1.0.0 without an issuer"),
        pytest.param({"audit.schema.version": "1.1.0"}, {"attribute_missing"}, id="1.1.0 without an issuer"),
        pytest.param({"audit.schema.version": "1.2.0"}, {"attribute_missing"}, id="a later version without an issuer"),
        pytest.param({"audit.schema.version": "1.1.0", **STATED}, set(), id="1.1.0 with an issuer"),
        pytest.param({"audit.schema.version": "1.0.0", **STATED}, set(), id="1.0.0 with an issuer"),
        pytest.param(
            {"audit.schema.version": "1.2.0", **STATED, "auditrace.of.later": ["x"]}, set(), id="an unknown attribute"
        ),
    ],
)
def test_a_version_decides_which_attributes_a_record_must_have(
    more: dict[str, Any], codes: set[str], tmp_path: Path
) -> None:
    """The issuer of the actor is required of all versions but 1.0.0; attributes of later versions are no finding."""
    ledger = Ledger(version="1.0.0")
    ledger.append(1, **more)
    assert {code for code, _, _ in _findings(ledger, tmp_path)} == codes
