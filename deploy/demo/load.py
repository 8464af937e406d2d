"""Sends the requests of a small company to a running service, without end: jobs that succeed and fail, and refusals.

`python load.py URL KEYS [--rounds N] [--pause S]`, with the API keys of `keys.sh` in the folder KEYS. Only for
demonstrations and tests: it makes the events that dashboards and alerts show.
"""

import argparse
import itertools
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

PEOPLE = ("olga", "omar", "ann", "audrey")
WAIT_S = 60.0
POLL_S = 0.2


class UnexpectedAnswerError(Exception):
    """The service gave another answer than expected; the text holds the answer."""


class Company:
    """Four people and a stranger, who use one service."""

    def __init__(self, url: str, keys: Mapping[str, str]) -> None:
        self._clients = {
            who: httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30.0)
            for who, key in keys.items()
        }

    def work(self, number: int) -> None:
        """Do one round: jobs that succeed, fail, are rejected, refusals by role, state and four eyes, a denied login.

        Raises:
            UnexpectedAnswerError: an answer had another status than expected.
        """
        job = self._post("olga", "/v1/jobs", {"template": "disk-usage", "parameters": {"path": "/srv"}}, 201)["id"]
        self._post("olga", f"/v1/jobs/{job}/draft", None, 200)
        self._post("olga", f"/v1/jobs/{job}/run", None, 200)
        self._post("audrey", f"/v1/jobs/{job}/cancel", None, 403)
        self._post("olga", f"/v1/jobs/{job}/draft", None, 409)

        failing = self._post("olga", "/v1/jobs", {"template": "csv-profile"}, 201)["id"]
        self._post("olga", f"/v1/jobs/{failing}/draft", None, 200)
        self._post("olga", f"/v1/jobs/{failing}/run", None, 200)

        old = {"template": "delete-old-files", "parameters": {"path": "/tmp/auditrace-load", "days": 30}}  # noqa: S108
        risky = self._post("omar", "/v1/jobs", old, 201)["id"]
        plan = self._post("omar", f"/v1/jobs/{risky}/draft", None, 200)["plan"]["sha256"]
        approval = {"confirmed": True, "plan_sha256": plan, "run": False}
        self._post("omar", f"/v1/jobs/{risky}/confirm", approval, 403)
        self._post("ann", f"/v1/jobs/{risky}/confirm", {**approval, "plan_sha256": "0" * 64}, 409)
        self._post("ann", f"/v1/jobs/{risky}/confirm", approval, 200)
        self._post("olga", f"/v1/jobs/{risky}/cancel", None, 200)

        unwanted = self._post("olga", "/v1/jobs", old, 201)["id"]
        self._post("olga", f"/v1/jobs/{unwanted}/draft", None, 200)
        self._post("ann", f"/v1/jobs/{unwanted}/reject", {"reason": "not before the backup"}, 200)

        self._post("olga", "/v1/jobs", {"template": "no-such-template"}, 400)
        self._get("stranger", "/v1/jobs", 401)
        self._get("audrey", f"/v1/jobs/{job}/audit", 200)
        self._until(job, "succeeded")
        self._until(failing, "failed")
        sys.stdout.write(f"round {number}: jobs {job} {failing} {risky}\n")
        sys.stdout.flush()

    def _post(self, who: str, path: str, body: Mapping[str, object] | None, expected: int) -> Mapping[str, Any]:
        return _checked(self._clients[who].post(path, json=body), expected)

    def _get(self, who: str, path: str, expected: int) -> Mapping[str, Any]:
        return _checked(self._clients[who].get(path), expected)

    def _until(self, job: str, status: str) -> None:
        waited = threading.Event()
        for _ in range(int(WAIT_S / POLL_S)):
            if self._get("olga", f"/v1/jobs/{job}", 200)["status"] == status:
                return
            waited.wait(POLL_S)
        raise UnexpectedAnswerError(f"job {job} was not {status} within {WAIT_S:g} s")


def _checked(answer: httpx.Response, expected: int) -> Mapping[str, Any]:
    if answer.status_code != expected:
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise UnexpectedAnswerError(f"{asked}: expected {expected}, got {answer.status_code}: {answer.text}")
    document: Mapping[str, Any] = answer.json()
    return document


def main(arguments: list[str]) -> int:
    """Do rounds until stopped, or N rounds; return 1 when one of N rounds fails."""
    parser = argparse.ArgumentParser(description="Sends the requests of a small company to a running service.")
    parser.add_argument("url")
    parser.add_argument("keys", type=Path)
    parser.add_argument("--rounds", type=int, help="end after N rounds, or at the first failure; default: never end")
    parser.add_argument("--pause", type=float, default=5.0, metavar="S", help="seconds between rounds")
    parsed = parser.parse_args(arguments)
    keys = {who: (parsed.keys / f"{who}.key").read_text().strip() for who in PEOPLE}
    company = Company(parsed.url, {**keys, "stranger": "atk_stranger_x"})
    pause = threading.Event()
    for number in itertools.count(1):
        try:
            company.work(number)
        except (UnexpectedAnswerError, httpx.HTTPError) as error:
            sys.stderr.write(f"round {number}: {error}\n")
            if parsed.rounds is not None:
                return 1
        if number == parsed.rounds:
            return 0
        pause.wait(parsed.pause)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
