"""Describes an exception in the attributes of a span or log record, without what may be secret in its texts."""

import traceback
from collections.abc import Mapping

from telemetry import names
from telemetry.urls import hidden


def attributes_of_exception(error: BaseException) -> Mapping[str, str]:
    """Return type, message and stack trace, those of its causes included."""
    return {
        names.EXCEPTION_TYPE: type(error).__qualname__,
        names.EXCEPTION_MESSAGE: printable(hidden(str(error))),
        names.EXCEPTION_STACKTRACE: printable(hidden("".join(traceback.format_exception(error)))),
    }


def printable(text: str) -> str:
    """Return a text that UTF-8 can hold: a lone surrogate would make the SDK drop a whole batch."""
    return text.encode("utf-8", "backslashreplace").decode()
