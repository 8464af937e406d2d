"""The story that `auditrace demo` tells: real requests of four people to a running service."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from service.jobs.texts import visible, visible_command

_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.2
_MARGIN: Final = " " * 11

CAST: Final[Mapping[str, str]] = {
    "olga": "operator",
    "omar": "operator approver",
    "ann": "approver",
    "audrey": "auditor",
}
"""The people and their roles. Omar may approve, but not a job that he created."""

JsonObject = Mapping[str, Any]


class DemoError(Exception):
    """The service gave another answer than the story expects; the text holds the answer."""


class Story:
    """Sends the requests of the story one by one, and prints each step when it has happened."""

    def __init__(self, url: str, keys: Mapping[str, str], stage: Path, line: Callable[[str], object]) -> None:
        """Use the service at `url` with the people's API keys.

        A job of the story deletes the old files of the folder `stage`. `line` prints a line.
        """
        self._clients = {
            name: httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_S)
            for name, key in keys.items()
        }
        self._stage = stage
        self._line = line
        self._step = 0

    def tell(self) -> Sequence[str]:
        """Run the story and return the ids of its jobs.

        Raises:
            DemoError: an answer was not the expected one.
        """
        return [self._four_eyes(), self._rejection(), self._failure(), self._cancellation()]

    def records(self, job_ids: Sequence[str]) -> list[JsonObject]:
        """Return every record of these jobs as the auditor sees them, in the order of commits."""
        found: list[JsonObject] = []
        for job_id in job_ids:
            page = self._clients["audrey"].get(f"/v1/jobs/{job_id}/audit", params={"limit": 1000}).json()
            found += reversed(page["records"])
        return found

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _four_eyes(self) -> str:
        parameters = {"path": str(self._stage), "days": 30}
        job = self._post(
            "omar",
            "creates a job that deletes files which nobody changed for 30 days",
            "",
            201,
            {"template": "delete-old-files", "parameters": parameters},
        )
        path = f"/{job['id']}"
        plan = self._post("omar", "looks at the plan: the exact command, and its hash", f"{path}/draft", 200)["plan"]
        self._line(f"{_MARGIN}{visible_command(plan['argv'])}\n{_MARGIN}sha256 {plan['sha256']}")
        approval = {"confirmed": True, "plan_sha256": plan["sha256"], "notes": "checked with the team"}
        self._post("omar", "tries to confirm his own job, and is refused", f"{path}/confirm", 403, approval)
        self._post("ann", "confirms exactly this plan, which also queues the run", f"{path}/confirm", 200, approval)
        self._until("a worker runs it", "omar", job["id"], "succeeded")
        artifact = self._clients["omar"].get(f"/v1/jobs{path}/runs/1/artifacts/stdout")
        self._say("omar", "reads what was deleted", artifact, 200)
        self._line(f"{_MARGIN}{artifact.text.strip()}")
        return str(job["id"])

    def _rejection(self) -> str:
        parameters = {"path": "/var/cache/apt", "days": 1}
        job = self._post(
            "olga",
            "creates a job that deletes files which nobody changed for a day",
            "",
            201,
            {"template": "delete-old-files", "parameters": parameters},
        )
        path = f"/{job['id']}"
        self._post("olga", "makes the draft", f"{path}/draft", 200)
        reason = {"reason": "one day is too short: keep a month"}
        rejection = self._post("ann", "rejects the plan, and says why", f"{path}/reject", 200, reason)["rejection"]
        self._line(f"{_MARGIN}{visible(rejection['reason'])}")
        return str(job["id"])

    def _failure(self) -> str:
        job = self._post("olga", "creates a CSV profile, but forgets the file", "", 201, {"template": "csv-profile"})
        path = f"/{job['id']}"
        self._post("olga", "makes the draft", f"{path}/draft", 200)
        self._post("olga", "runs it", f"{path}/run", 200)
        self._until("it fails", "olga", job["id"], "failed")
        self._post("olga", "retries it", f"{path}/retry", 200)
        self._until("it fails again", "olga", job["id"], "failed", runs=2)
        return str(job["id"])

    def _cancellation(self) -> str:
        job = self._post("olga", "creates a job", "", 201, {"template": "disk-usage", "parameters": {"path": "/var"}})
        path = f"/{job['id']}"
        self._post("olga", "cancels it", f"{path}/cancel", 200)
        self._post("olga", "tries to run it all the same, and is refused", f"{path}/run", 409)
        return str(job["id"])

    def _post(
        self, who: str, what: str, path: str, expected: int, body: Mapping[str, object] | None = None
    ) -> JsonObject:
        answer = self._clients[who].post(f"/v1/jobs{path}", json=body)
        self._say(who, what, answer, expected)
        document: JsonObject = answer.json()
        return document

    def _until(self, what: str, who: str, job_id: str, status: str, runs: int = 1) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            answer = self._clients[who].get(f"/v1/jobs/{job_id}")
            job: JsonObject = answer.json()
            if job["status"] == status and len(job["runs"]) == runs:
                self._say("", what, answer, 200)
                if status == "failed":
                    self._line(f"{_MARGIN}{job['runs'][-1]['stderr_end'].strip()}")
                return
            if time.monotonic() > deadline:
                raise DemoError(f"waited {_TIMEOUT_S:g} s until {what}; the job is {job['status']}")
            threading.Event().wait(_POLL_S)

    def _say(self, who: str, what: str, answer: httpx.Response, expected: int) -> None:
        self._step += 1
        asked = f"{answer.status_code}  {who} " if who else " " * 5
        self._line(f"{self._step:4}  {asked}{what}")
        if answer.status_code != expected:
            raise DemoError(f"expected {expected}, got {answer.status_code}: {answer.text}")
        if expected >= 400:
            self._line(f"{_MARGIN}{answer.json()['detail']}")
