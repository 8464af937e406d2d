"""Hooks of schemathesis: every request has the next of several credentials, and every answer is kept with its records.

`FUZZ_CREDENTIALS` has the bearer tokens, separated by commas. `FUZZ_ANSWERS` names the file that gets a line of JSON
for each answer.
"""

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import schemathesis

CREDENTIALS = os.environ["FUZZ_CREDENTIALS"].split(",")  # noqa: TID251 - of the test run
ANSWERS = Path(os.environ["FUZZ_ANSWERS"])  # noqa: TID251 - of the test run
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_turns = itertools.count()


@schemathesis.auth()
class RotatingCredentials:
    """Gives each request the next credential."""

    def get(self, case: Any, context: Any) -> str:
        """Return the next bearer token."""
        return CREDENTIALS[next(_turns) % len(CREDENTIALS)]

    def set(self, case: Any, data: str, context: Any) -> None:
        """Put the token into the request."""
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make waits for a job short: the answer is the same, and the longest of them last a minute."""
    if re.fullmatch(r"[0-9]+(s|m|h|d)", str((case.query or {}).get("wait"))):
        case.query["wait"] = "10ms"


@schemathesis.check
def leaves_its_record(context: Any, response: Any, case: Any) -> None:
    """A change, and a refusal of one with a valid credential, names its record; what is counted (429) names none."""
    if case.method.upper() in CHANGES and response.status_code not in {401, 405, 429}:
        assert _record_of(response), f"{response.status_code} names no record"


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Keep what the answer says of itself."""
    answer = {
        "method": case.method.upper(),
        "operation": case.operation.label,
        "status": response.status_code,
        "record_id": _record_of(response),
        "request_id": (response.headers.get("x-request-id") or [None])[0],
    }
    with ANSWERS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(answer) + "\n")


def _record_of(response: Any) -> str | None:
    try:
        body = json.loads(response.content)
    except ValueError:
        return None
    receipt = body.get("audit") if isinstance(body, dict) else None
    return receipt.get("record_id") if isinstance(receipt, dict) else None
