"""Requests that the OpenAPI document allows, and requests that it does not, made by schemathesis for a real service.

`AUDITRACE_TEST_LONG=1` makes at least 5,000 requests of them.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.bootstrap.clock import now_ns
from service.roles import ROLES
from tests.support.collector import ROOT
from tests.support.service import Service
from tests.support.tokens import ISSUER, TokenIssuer

IS_LONG = bool(os.environ.get("AUDITRACE_TEST_LONG"))  # noqa: TID251 - of the test run
SUPPORT = ROOT / "tests" / "support"
# Half of the actors have all roles. There are so many that none uses up what it may leave in records in a minute.
ACTORS = [*([ROLES] * len(ROLES)), *((role,) for role in ROLES)] * (40 if IS_LONG else 10)
HOUR_S = 3600


class Fuzzed:
    """A finished run of schemathesis against a service, with its answers and its records."""

    def __init__(self, folder: Path) -> None:
        issuer = TokenIssuer(folder, now_ns)
        end = now_ns() // 10**9 + HOUR_S
        tokens = [issuer.token(f"fuzz-{number}", *roles, exp=end) for number, roles in enumerate(ACTORS)]
        settings = {
            "AUDITRACE_TEMPLATES": str(ROOT / "jobs.toml"),
            "AUDITRACE_JWT_ISSUER": ISSUER,
            "AUDITRACE_JWT_AUDIENCE": "auditrace",
            "AUDITRACE_JWT_JWKS": str(folder / "jwks.json"),
        }
        self._answers = folder / "answers.jsonl"
        with Service(folder, settings) as service:
            credentials = [service.key("fuzz", *ROLES), *tokens]
            self.done = self._run(service.url, folder, credentials)
            rows = service.rows("SELECT record_id, request_id FROM audit_records")
        self.log = service.log.read_text(errors="replace")
        self.requests: Mapping[str, str] = dict(rows)
        self.verdict = service.verify().verdict

    @property
    def answers(self) -> Sequence[Mapping[str, Any]]:
        """The answers in the order in which they came."""
        return [json.loads(line) for line in self._answers.read_text().splitlines()]

    def _run(self, url: str, folder: Path, credentials: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        command = [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file", SUPPORT / "schemathesis.toml",
            "run", f"{url}/schema/openapi.json",
            "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful",
            *(["--max-examples", "100"] if IS_LONG else []),
            # The same requests in every run, so that a failure is a change of the service.
            "--seed", "1", "--generation-deterministic",
            "--warnings", "off", "--no-color", "--continue-on-failure",
        ]  # fmt: skip
        environment = {
            **os.environ,  # noqa: TID251 - of the test run
            "PYTHONPATH": str(SUPPORT),
            "SCHEMATHESIS_HOOKS": "fuzz_hooks",
            "FUZZ_CREDENTIALS": ",".join(credentials),
            "FUZZ_ANSWERS": str(self._answers),
        }
        return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Fuzzed:
    """A service after a run with rotating credentials."""
    return Fuzzed(tmp_path_factory.mktemp("fuzzed"))


def test_every_answer_is_one_that_the_document_describes(fuzzed: Fuzzed) -> None:
    """No 5xx, no undocumented status, header or body, no method or credential too many, each change with its record."""
    assert fuzzed.done.returncode == 0, fuzzed.done.stdout[-20_000:]


def test_every_operation_was_asked_with_and_without_success(fuzzed: Fuzzed) -> None:
    """The run reached each operation, several hundred times in all, and its changes did happen."""
    asked = Counter(answer["operation"] for answer in fuzzed.answers)
    changed = {each["operation"] for each in fuzzed.answers if each["status"] < 300 and each["method"] != "GET"}
    assert len(fuzzed.answers) >= (5000 if IS_LONG else 500)
    assert len(asked) >= 25
    assert {"POST /v1/jobs", "POST /v1/jobs/{job_id}/draft", "POST /v1/jobs/{job_id}/cancel"} <= changed


def test_every_record_that_an_answer_names_is_in_the_ledger(fuzzed: Fuzzed) -> None:
    """A receipt names a committed record, which names the request."""
    named = [answer for answer in fuzzed.answers if answer["record_id"]]
    assert len(named) >= 100
    for answer in named:
        assert fuzzed.requests[answer["record_id"]] == answer["request_id"], answer


def test_the_trail_of_all_of_it_verifies(fuzzed: Fuzzed) -> None:
    """The archive is intact, and the service logged no error."""
    assert fuzzed.verdict == "intact"
    assert "Traceback" not in fuzzed.log, fuzzed.log[-4000:]
