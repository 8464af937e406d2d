"""Each event of the catalogue, as a deployment makes it: exactly these attributes, and changes of these fields only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from telemetry import names
from telemetry.audit.verify import read_copy, verify
from tests.integration.story_of_every_event import FIRST_KEY, tell
from tests.support import small_verifier
from tests.support.collector import ROOT
from tests.support.postgres import PostgresServer

EVENTS = {
    event["name"]: event
    for event in yaml.safe_load((ROOT / "telemetry" / "registry" / "events.yaml").read_text("utf-8"))["events"]
}
NOT_MADE = {names.EVENT_AUDIT_RETENTION, names.EVENT_KEY_ADOPT}
"""Nothing makes the one yet; the other comes with keys of older versions only (tests/contract/test_key_coverage.py)."""

ALWAYS = {*names.ALWAYS, *names.ALWAYS_BEYOND_1_0_0}
LINK = {names.AUDIT_SEQUENCE_PREV_HASH, names.AUDIT_SEQUENCE_PREV_RECORD_ID}
CALLER = {
    *(names.AUDIT_SOURCE_TYPE, names.AUDIT_SOURCE_ID, names.CLIENT_ADDRESS, names.USER_AGENT_ORIGINAL),
    *(names.AUDITRACE_REQUEST_ID, names.HTTP_REQUEST_METHOD, names.HTTP_ROUTE, names.URL_PATH),
}
REQUEST = {*CALLER, names.AUDITRACE_CREDENTIAL_ID}
COMMAND = {names.HOST_NAME, names.PROCESS_OWNER, names.PROCESS_COMMAND_ARGS}
OF_THE_SESSION = {names.AUDITRACE_ACTOR_LOGIN_ID, names.AUDITRACE_ACTOR_SUDO_ID}
"""Those of a command that depend on how its user logged in."""
ASKED = {
    *(names.AUDITRACE_INITIATOR_ID, names.AUDITRACE_INITIATOR_TYPE, names.AUDITRACE_INITIATOR_ISSUER),
    *(names.AUDITRACE_INITIATOR_RECORD_ID, names.AUDITRACE_REQUEST_ID),
}
CHANGES, REASON, FAILURE = names.AUDITRACE_CHANGES, names.AUDITRACE_REASON, names.ERROR_TYPE
VERSION, RUN = names.AUDITRACE_TARGET_VERSION, names.AUDITRACE_JOB_RUN
NEW_JOB = {names.AUDITRACE_JOB_ID, names.AUDITRACE_JOB_TEMPLATE, VERSION, CHANGES}
JOB = {*NEW_JOB, names.AUDITRACE_JOB_PLAN_SHA256}
CHECKPOINT = {
    *(names.AUDITRACE_CHECKPOINT_NUMBER, names.AUDITRACE_CHECKPOINT_TIPS),
    *(names.AUDITRACE_CHECKPOINT_STREAMS, names.AUDITRACE_CHECKPOINT_RECORDS),
}
LINKED_CHECKPOINT = {*CHECKPOINT, names.AUDITRACE_CHECKPOINT_PREV_HASH, names.AUDITRACE_CHECKPOINT_PREV_SIGNATURE}

EXPECTED: Mapping[str, Sequence[set[str]]] = {
    "job.create": [{*REQUEST, *NEW_JOB}, {*REQUEST, REASON, FAILURE}],
    "job.draft": [{*REQUEST, *JOB, names.AUDITRACE_JOB_PLAN}],
    "job.confirm": [{*REQUEST, *JOB, names.AUDITRACE_NOTES}],
    "job.reject": [{*REQUEST, *JOB, REASON}],
    "job.run.trigger": [{*REQUEST, *JOB}],
    "job.retry": [{*REQUEST, *JOB, REASON}],
    "job.cancel": [{*REQUEST, *NEW_JOB, REASON}],
    "job.status.transition": [
        {*ASKED, *JOB, RUN},
        {*ASKED, *JOB, RUN, names.AUDITRACE_RUN_ISOLATION},
        {*ASKED, *JOB, RUN, REASON, FAILURE},
    ],
    "input.write": [{*REQUEST, *NEW_JOB}],
    "artifact.read": [{*REQUEST, *JOB, RUN} - {VERSION}],
    "audit.read": [{*REQUEST, CHANGES}],
    "audit.export": [{*REQUEST, CHANGES}],
    "audit.verify": [{*REQUEST, CHANGES}, {*COMMAND, CHANGES}],
    "auth.denied": [{*CALLER, CHANGES, REASON, FAILURE}],
    "request.throttled": [
        {*REQUEST, CHANGES, REASON, FAILURE}
        - {names.AUDITRACE_REQUEST_ID, names.USER_AGENT_ORIGINAL, names.HTTP_REQUEST_METHOD, names.URL_PATH}
    ],
    "key.create": [{CHANGES}, {*COMMAND, CHANGES}],
    "key.revoke": [{*COMMAND, CHANGES}],
    "key.rotate": [{*COMMAND, CHANGES}],
    "audit.checkpoint": [
        CHECKPOINT,
        LINKED_CHECKPOINT,
        {*LINKED_CHECKPOINT, names.AUDITRACE_CHECKPOINT_PREV_NUMBER},
    ],
    "audit.stream.open": [set()],
    "audit.stream.close": [set()],
    "audit.key.rotate": [{*COMMAND, CHANGES}],
    "audit.restore": [{*COMMAND, CHANGES}],
    "audit.redeliver": [{*COMMAND, CHANGES}],
    "audit.copy": [{*COMMAND, CHANGES}],
    "service.configure": [{CHANGES}],
}
"""The attributes of each event beside those that every record has; several sets where there are several cases."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the service."""
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="module")
def records(folder: Path, postgres_server: PostgresServer) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """The attributes of all records of the story, by event."""
    url = postgres_server.create_database()
    bodies = tell(folder, url)
    postgres_server.drop_database(url)
    return {
        event: [body["attributes"] for body in bodies if body["event_name"] == event]
        for event in dict.fromkeys(body["event_name"] for body in bodies)
    }


def test_every_event_was_made(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The story makes the whole catalogue, and nothing else."""
    assert records.keys() == EVENTS.keys() - NOT_MADE == EXPECTED.keys()


@pytest.mark.parametrize("event", EXPECTED)
def test_an_event_has_exactly_its_attributes(event: str, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """No attribute is missing, and none is there that the event does not have; every case of the event was seen."""
    first_of_stream = 1
    seen = set()
    for attributes in records[event]:
        link = LINK if attributes[names.AUDIT_SEQUENCE_NUMBER] > first_of_stream else set()
        assert attributes.keys() >= ALWAYS | link
        seen.add(frozenset(attributes.keys() - ALWAYS - link - OF_THE_SESSION))
    assert seen == set(map(frozenset, EXPECTED[event]))


@pytest.mark.parametrize("event", EXPECTED)
def test_an_event_changes_only_its_fields(event: str, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The registry lists every field of the changes; a setting has its own name, on the record of the service alone."""
    for attributes in records[event]:
        fields = set(attributes.get(CHANGES, {}))
        if attributes[names.AUDIT_TARGET_TYPE] != "service":
            assert fields <= set(EVENTS[event]["changes"])


def test_who_acted_is_what_the_act_says(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Requests are acts of keys, commands of persons, the rest of the service itself; each says who vouches."""
    issuers = {
        source: {attributes[names.AUDITRACE_ACTOR_ISSUER] for each in records.values() for attributes in each}
        for source, records in {
            "key": {event: _with(records[event], REQUEST) for event in records},
            "os": {event: _with(records[event], COMMAND) for event in records},
            "service": {event: records[event] for event in ("audit.checkpoint", "job.status.transition")},
        }.items()
    }
    assert issuers == {"key": {"key"}, "os": {"os"}, "service": {"service"}}


def _with(records: Sequence[Mapping[str, Any]], keys: set[str]) -> Sequence[Mapping[str, Any]]:
    return [attributes for attributes in records if attributes.keys() >= keys]


@pytest.mark.usefixtures("records")
def test_the_archive_of_the_story_is_intact_for_both_verifiers(folder: Path) -> None:
    """A copy with every event, a rotation and a restore verifies under the first key, and an edited plan does not."""
    key = load_pem_public_key((folder / FIRST_KEY).read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    copy = folder / "copy.otlp.jsonl"
    text = "".join(path.read_text("utf-8") for path in sorted((folder / "archive").glob("*.jsonl")))
    for untouched, verdict in ((True, "intact"), (False, "broken")):
        copy.write_text(text if untouched else text.replace("hello", "hallo"), "utf-8")
        report = verify(read_copy([copy]), public_keys=[key])
        found = {(finding.code, finding.stream_id, finding.number) for finding in report.findings}
        assert (report.verdict, found) == (verdict, small_verifier.check(copy.read_text("utf-8"), key))
