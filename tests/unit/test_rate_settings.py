"""The settings of limits: what they may say, what they are without a word, and what is put on record of them."""

import pytest

from service.bootstrap.configuration import ConfiguredPart, stated
from service.config import examine_settings, read_settings
from service.operations.rates import Limit, Rate, RequestLimits


def test_the_defaults_protect_and_leave_ordinary_use_alone() -> None:
    """Everything has a limit from the start but the bytes that a tenant stores, which only its operator can know."""
    assert read_settings({}).limits == RequestLimits(
        credential_requests=Rate(1000, 1),
        credential_bytes=Rate(2**30, 60),
        source_requests=Rate(20, 1),
        unauthenticated_requests=Rate(200, 1),
        tenant_jobs=Rate(60_000, 60),
        tenant_records=Rate(120_000, 60),
        tenant_bytes=None,
    )


def test_every_limit_has_a_setting_of_its_name() -> None:
    """What the metric and the records call a limit is the name of its setting in the process."""
    assert RequestLimits.__struct_fields__ == tuple(Limit)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("AUDITRACE_RATE_CREDENTIAL", "5/s", RequestLimits(credential_requests=Rate(5, 1))),
        ("AUDITRACE_RATE_CREDENTIAL_BYTES", "8MiB/min", RequestLimits(credential_bytes=Rate(8 * 2**20, 60))),
        ("AUDITRACE_RATE_TENANT_JOBS", "3/min", RequestLimits(tenant_jobs=Rate(3, 60))),
        ("AUDITRACE_TENANT_BYTES", "10GiB", RequestLimits(tenant_bytes=10 * 2**30)),
    ],
)
def test_a_limit_is_what_the_setting_says(name: str, text: str, expected: RequestLimits) -> None:
    """Each setting sets its limit; `none` is no limit."""
    none = dict.fromkeys((*NAMES, "AUDITRACE_TENANT_BYTES"), "none")
    assert read_settings(none).limits == RequestLimits()
    assert read_settings({**none, name: text}).limits == expected


NAMES = (
    *("AUDITRACE_RATE_CREDENTIAL", "AUDITRACE_RATE_CREDENTIAL_BYTES", "AUDITRACE_RATE_SOURCE"),
    *("AUDITRACE_RATE_UNAUTHENTICATED", "AUDITRACE_RATE_TENANT_JOBS", "AUDITRACE_RATE_TENANT_RECORDS"),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["5", "5/h", "0/s", "-1/s", "1.5/s", "٣/s", "/s", "99999999999/s", "0KiB/min", "None"])
def test_a_wrong_limit_is_refused_with_its_name(name: str, text: str) -> None:
    """The start says which setting is wrong, and what to write."""
    (problem,) = examine_settings({name: text}).problems
    assert problem.startswith(f"{name}: ")


def test_a_tenant_cannot_be_limited_to_nothing() -> None:
    """A limit of zero bytes would be no service."""
    (problem,) = examine_settings({"AUDITRACE_TENANT_BYTES": "0GiB"}).problems
    assert problem == "AUDITRACE_TENANT_BYTES: 0GiB lets nothing pass: write none for no limit"


def test_limits_are_put_on_record() -> None:
    """Who weakens a limit shows in `service.configure`; only processes that take requests have limits."""

    def of(environment: dict[str, str], part: ConfiguredPart) -> dict[str, object]:
        settings = read_settings(environment)
        values = stated(settings, frozenset({part}), lambda _: "", version="1").configuration.settings
        return {name: value for name, value in values.items() if name.startswith("limits.")}

    usual = of({}, ConfiguredPart.API)
    assert usual["limits.source_requests"] == "20 in 1 s"
    assert usual["limits.tenant_bytes"] == "none"
    assert set(usual) == {f"limits.{limit}" for limit in Limit}
    changed = of({"AUDITRACE_RATE_SOURCE": "none", "AUDITRACE_TENANT_BYTES": "1MiB"}, ConfiguredPart.API)
    assert (changed["limits.source_requests"], changed["limits.tenant_bytes"]) == ("none", "1048576")
    assert of({}, ConfiguredPart.WORKER) == {"limits.tenant_bytes": "none"}
