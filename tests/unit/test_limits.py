"""A body that would be over 64 KiB is cut where it is largest, and says where."""

import msgspec
import pytest

from telemetry import names
from telemetry.audit.canonical import Value
from telemetry.audit.limits import MAX_BODY_BYTES, fit

PLAN, NOTES, REASON = names.AUDITRACE_JOB_PLAN, names.AUDITRACE_NOTES, names.AUDITRACE_REASON
AGENT, CHANGES, TRUNCATED = names.USER_AGENT_ORIGINAL, names.AUDITRACE_CHANGES, names.AUDITRACE_TRUNCATED
ACTOR = names.AUDIT_ACTOR_ID


def _fit(**attributes: Value) -> dict[str, Value]:
    fitted = dict(fit({getattr(names, name): value for name, value in attributes.items()}))
    assert len(msgspec.json.encode(fitted)) <= MAX_BODY_BYTES
    return fitted


def test_what_fits_is_left_as_it_is() -> None:
    """Up to the limit nothing is cut."""
    attributes = {PLAN: "p" * 50_000, NOTES: "n" * 4096}
    assert fit(attributes) is attributes


def test_the_plan_of_a_job_is_cut_last() -> None:
    """It stays whole, so that its hash can be computed again, while cutting other texts is enough."""
    fitted = _fit(AUDITRACE_JOB_PLAN="p" * 40_000, AUDITRACE_NOTES="n" * 30_000, AUDIT_ACTOR_ID="anna")
    assert fitted[PLAN] == "p" * 40_000
    assert fitted[NOTES] == "n" * 256 + "…"
    assert fitted[TRUNCATED] == [NOTES]
    changes = {"parameters": {"to": {"a": "x" * 30_000}}, "status": {"from": "a", "to": "b"}}
    fitted = _fit(AUDITRACE_JOB_PLAN="p" * 40_000, AUDITRACE_CHANGES=changes)
    assert (fitted[PLAN], fitted[TRUNCATED]) == ("p" * 40_000, [f"{CHANGES}.parameters"])


def test_a_plan_that_alone_is_too_large_is_cut_and_listed() -> None:
    """The record is never refused; what was short is not cut, and not listed as if it were."""
    changes = {"status": {"from": "created", "to": "draft_ready"}}
    fitted = _fit(
        AUDITRACE_JOB_PLAN="p" * 70_000, AUDIT_ACTOR_ID="anna", AUDITRACE_CHANGES=changes, USER_AGENT_ORIGINAL="a" * 300
    )
    assert fitted[PLAN] == "p" * 256 + "…"
    assert (fitted[ACTOR], fitted[CHANGES]) == ("anna", changes)
    assert fitted[TRUNCATED] == [PLAN, AGENT]


@pytest.mark.parametrize("name", ["AUDITRACE_REASON", "AUDITRACE_NOTES", "URL_PATH", "AUDIT_TARGET_ID"])
def test_each_free_text_can_be_cut(name: str) -> None:
    """Whatever is large keeps its beginning."""
    fitted = _fit(**{name: "x" * 100_000})
    assert fitted[TRUNCATED] == [getattr(names, name)]
