"""A failure is logged once, and so is its end."""

import logging

import pytest

from service.errors import LedgerUnavailableError
from service.outage import Outage


def _away() -> None:
    raise LedgerUnavailableError("away")


def _broken() -> None:
    raise ZeroDivisionError("boom")


def test_two_steps_that_fail_differently_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first problem counts, however often the steps are taken; every step is taken each time."""
    outage = Outage(logging.getLogger("test"), "it fails", "it works again")
    for _ in range(3):
        outage.attempt(_away, _broken)
    outage.attempt(lambda: None)
    assert [record.getMessage() for record in caplog.records] == ["it fails: away", "it works again"]
    assert outage.problem is None


def test_an_unexpected_error_is_logged_with_its_traceback_once(caplog: pytest.LogCaptureFixture) -> None:
    """It does not end the thread that takes the steps."""
    outage = Outage(logging.getLogger("test"), "it fails", "it works again", logging.WARNING)
    for _ in range(2):
        outage.attempt(_broken)
    (record,) = caplog.records
    assert record.getMessage() == "it fails: unexpected ZeroDivisionError: boom"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
