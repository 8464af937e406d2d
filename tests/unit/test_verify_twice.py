"""The verifier against a second one that was written from the document alone."""

import ast
from pathlib import Path

import pytest

from telemetry.audit.verify import read_copy, verify
from tests.support import small_checkpoints, small_records, small_verifier
from tests.unit.test_verify_vectors import EXPECTED, VECTORS, public_key


@pytest.mark.parametrize("name", EXPECTED)
def test_both_verifiers_say_the_same_of_a_vector(name: str) -> None:
    """The verifier and the small one find the same codes at the same numbers of the same streams in every vector."""
    report = verify(read_copy([VECTORS / name]), public_keys=[public_key()])

    found = {(finding.code, finding.stream_id, finding.number) for finding in report.findings}
    assert found == small_verifier.check((VECTORS / name).read_text(), public_key())


def test_the_small_verifier_shares_no_code_with_the_verifier() -> None:
    """The small verifier imports nothing from this project, so that an error in one does not hide in the other."""
    for module in (small_verifier, small_checkpoints, small_records):
        imported = {
            name
            for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or "."]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        own = {name for name in imported if name.split(".")[0] in {"telemetry", "service", "tests", "", "."}}
        assert own <= {"tests.support.small_checkpoints", "tests.support.small_records"}
