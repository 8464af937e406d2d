"""Inputs and artifacts over HTTP: bytes in and out unchanged, names that cannot do harm, downloads that stay data."""

import base64
import hashlib
from typing import Any
from urllib.parse import quote

import pytest

from service.jobs.model import Status
from service.operations.jobs import MAX_INPUTS
from service.roles import VIEWER
from telemetry import names
from tests.support.api import ApiUnderTest, problem_of
from tests.support.both_stores import BOTH

pytestmark = pytest.mark.stores(*BOTH)

EVERY_BYTE = bytes(range(256)) * 3
ARTIFACT = "artifacts"


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


@pytest.mark.parametrize("payload", [b"", b"x", EVERY_BYTE], ids=["empty", "one byte", "every byte"])
def test_an_input_is_stored_as_it_was_sent(shared_api: ApiUnderTest, payload: bytes) -> None:
    """Answer and record carry name, size and SHA-256 of exactly the bytes that were sent, and those are stored."""
    client = shared_api.someone()
    job = client.new_job()
    with shared_api.leaves(names.EVENT_INPUT_WRITE) as left:
        answer = client.put(f"/v1/jobs/{job['id']}/inputs/data.bin", payload, headers={"Content-Type": "text/csv"})
    body, (record,) = answer.json(), left
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert (body["name"], body["size"], body["sha256"]) == ("data.bin", len(payload), _sha256(payload))
    assert (body["job_id"], body["version"]) == (job["id"], 2)
    assert body["audit"]["record_id"] == record.row.record_id
    assert record.changes == {
        "name": {"to": "data.bin"},
        "size": {"to": len(payload)},
        "sha256": {"to": _sha256(payload)},
    }
    assert shared_api.store.reads.input_payload(job["id"], "data.bin") == payload


def test_an_input_can_be_replaced_and_the_record_says_by_what(shared_api: ApiUnderTest) -> None:
    """Other bytes under the same name are a change from the old hash to the new; the same bytes are a no-op."""
    client = shared_api.someone()
    job = client.new_job()
    path = f"/v1/jobs/{job['id']}/inputs/a.txt"
    client.put(path, b"old")
    with shared_api.leaves(names.EVENT_INPUT_WRITE, names.EVENT_INPUT_WRITE) as left:
        client.put(path, b"new")
        assert client.put(path, b"new").json()["version"] == 3
    replaced, again = left
    assert replaced.changes["sha256"] == {"from": _sha256(b"old"), "to": _sha256(b"new")}
    assert (again.result, again.changes) == ("noop", {})


def test_a_job_takes_so_many_inputs_and_no_more(shared_api: ApiUnderTest) -> None:
    """The input beyond the limit is 409; replacing one of those that are there still works."""
    client = shared_api.someone()
    job = client.new_job()
    folder = f"/v1/jobs/{job['id']}/inputs"
    for number in range(MAX_INPUTS):
        assert client.put(f"{folder}/{number}.txt", b"x").status_code == 200
    shared_api.refused(names.EVENT_INPUT_WRITE, 409, "limit_exceeded", lambda: client.put(f"{folder}/more", b"x"))
    assert client.put(f"{folder}/0.txt", b"y").status_code == 200


@pytest.mark.parametrize("name", ["a", "A.b-c_d.tar.gz", "0", "x" * 128, "a.b.c", "CON", "-rf"])
def test_an_ordinary_name_is_taken(shared_api: ApiUnderTest, name: str) -> None:
    """Letters, digits, dots, underscores and hyphens make a name, up to 128 of them."""
    client = shared_api.someone()
    job = client.new_job()
    assert client.put(f"/v1/jobs/{job['id']}/inputs/{name}", b"x").json()["name"] == name


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fetc%2fpasswd",
        "..%2Fa",
        ".%2e",
        "%2e%2e",
        "a..b",
        ".hidden",
        "%2Fabsolute",
        "%2F",
        "%2F%2F",
        "a%2F",
        "a/",
        "a//b",
        "a/b",
        "a%5Cb",
        "..%5c..%5cwindows",
        "C:%5Ca",
        "nul%00byte",
        "a%0Ab",
        "a%0D%0ASet-Cookie:x",
        "tab%09",
        "%20",
        "a%20b",
        "a%25b",
        "%C3%A9",
        "%E2%80%AEtxt.exe",
        "%ED%A0%80",
        "%ff",
        "%EF%BC%8E%EF%BC%8E",
        "a%3Fb",
        "%2e",
        "x" * 129,
        "~root",
        "$HOME",
        "*",
    ],
)
def test_a_name_that_could_do_harm_is_refused(shared_api: ApiUnderTest, name: str) -> None:
    """Path tricks, control characters and look-alikes are 400, with a record of what was tried; none is stored."""
    client = shared_api.someone()
    job = client.new_job()
    path = f"/v1/jobs/{job['id']}/inputs/{name}"
    problem, record = shared_api.refused(
        names.EVENT_INPUT_WRITE, 400, "invalid_request", lambda: client.put(path, b"payload")
    )
    assert "name" in problem["detail"]
    assert record.target == ("job", job["id"])
    assert record[names.URL_PATH] == path
    assert shared_api.store.reads.inputs(job["id"]) == []
    assert client.get(f"/v1/jobs/{job['id']}").json()["version"] == 1


def test_no_name_at_all_is_no_input(shared_api: ApiUnderTest) -> None:
    """A path that ends where the name should begin leads nowhere, and stores nothing."""
    client = shared_api.someone()
    job = client.new_job()
    assert client.put(f"/v1/jobs/{job['id']}/inputs/", b"x").status_code in {404, 405}
    assert shared_api.store.reads.inputs(job["id"]) == []


def test_an_artifact_is_a_download_and_nothing_else(shared_api: ApiUnderTest) -> None:
    """Whatever a run left behind comes as bytes to be saved: never rendered, sniffed, cached or run in this origin."""
    client = shared_api.someone()
    job = client.finished_job(artifacts={"page.html": b"<script>alert(1)</script>"})
    reader = shared_api.someone(VIEWER)
    with shared_api.leaves(names.EVENT_ARTIFACT_READ) as left:
        answer = reader.get(f"/v1/jobs/{job['id']}/runs/1/artifacts/page.html")
    digest = hashlib.sha256(answer.content)
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''page.html"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    (record,) = left
    assert record.target == ("artifact", f"{job['id']}/runs/1/page.html")
    assert record[names.AUDIT_ACTOR_ID] == reader.name
    assert record[names.AUDITRACE_JOB_RUN] == 1
    assert record.changes["sha256"] == {"to": digest.hexdigest()}


def test_artifacts_are_listed_with_links_that_lead_to_them(shared_api: ApiUnderTest) -> None:
    """The listing of a run names each artifact, in folders too, in order, and each link gives its bytes."""
    left_behind = {"out/a.txt": b"a", "out/deep/b.bin": EVERY_BYTE, "stdout": b"", "Grüße 1+1=2?.txt": b"g"}
    client = shared_api.someone()
    job = client.finished_job(artifacts=left_behind)
    listed = client.get(f"/v1/jobs/{job['id']}/runs/1/artifacts").json()["artifacts"]
    assert [each["name"] for each in listed] == sorted(left_behind)
    for each in listed:
        payload = left_behind[each["name"]]
        assert (each["size"], each["sha256"]) == (len(payload), _sha256(payload))
        answer = client.get(each["links"]["self"])
        assert answer.content == payload
        assert "/" not in answer.headers["content-disposition"]
        encoded = f"/v1/jobs/{job['id']}/runs/1/artifacts/{quote(each['name'], safe='')}"
        assert client.get(encoded).content == payload


@pytest.mark.parametrize("run", ["0", "2", "-1", "999999999999999999999999"])
@pytest.mark.parametrize("name", ["", "/stdout"])
def test_a_run_that_never_was_has_no_artifacts(shared_api: ApiUnderTest, run: str, name: str) -> None:
    """A run number that the job has not reached, or that no job reaches, is 404."""
    client = shared_api.someone()
    job = client.finished_job(artifacts={"stdout": b"x"})
    problem_of(client.get(f"/v1/jobs/{job['id']}/runs/{run}/artifacts{name}"), 404, "not_found")


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fstdout", "stdout%00", "STDOUT", "%ff"])
def test_reading_an_artifact_that_is_not_there_is_recorded(shared_api: ApiUnderTest, name: str) -> None:
    """A guess at a name is 404 and leaves a refused `artifact.read`."""
    client = shared_api.someone()
    job = client.finished_job(artifacts={"stdout": b"x"})
    path = f"/v1/jobs/{job['id']}/runs/1/artifacts/{name}"
    _, record = shared_api.refused(names.EVENT_ARTIFACT_READ, 404, "not_found", lambda: client.get(path))
    assert record[names.URL_PATH] == path


def test_runs_are_listed_as_they_went(shared_api: ApiUnderTest) -> None:
    """The runs of a job come first to last, with exit code, duration, trace and links."""
    client = shared_api.someone()
    job = client.finished_job("exit_code")
    path = f"/v1/jobs/{job['id']}"
    client.post(f"{path}/retry")
    shared_api.finish_run(job["id"])
    runs: list[dict[str, Any]] = client.get(f"{path}/runs").json()["runs"]
    assert [(run["number"], run["status"], run["exit_code"]) for run in runs] == [
        (1, Status.FAILED, 1),
        (2, Status.SUCCEEDED, 0),
    ]
    assert runs[0]["error_type"] == "exit_code"
    assert runs[0]["trace_id"] != runs[1]["trace_id"]
    assert runs[1]["links"]["artifacts"] == f"{path}/runs/2/artifacts"
    assert client.get(path).json()["runs"] == runs


def test_a_failed_run_says_why(shared_api: ApiUnderTest) -> None:
    """A run that failed shows the end of its standard error, in the job and in its runs; listings leave it out."""
    client = shared_api.someone()
    job = client.finished_job("exit_code", stderr_end="wc: /etc/none: No such file\n")
    path = f"/v1/jobs/{job['id']}"
    reader = shared_api.someone(VIEWER)
    assert reader.get(f"{path}/runs").json()["runs"][0]["stderr_end"] == "wc: /etc/none: No such file\n"
    assert reader.get(path).json()["runs"][0]["stderr_end"] == "wc: /etc/none: No such file\n"
    assert client.post(f"{path}/retry").json()["runs"][0]["stderr_end"] == "wc: /etc/none: No such file\n"
    listed = reader.get(f"/v1/jobs?created_by={client.name}").json()["jobs"]
    assert [run["number"] for run in listed[0]["runs"]] == [1]
    assert "stderr_end" not in listed[0]["runs"][0]


def test_a_run_that_succeeded_has_nothing_to_explain(shared_api: ApiUnderTest) -> None:
    """What a successful run wrote to its standard error is an artifact, and stands nowhere else."""
    client = shared_api.someone()
    job = client.finished_job(stderr_end="100 % done")
    assert job["runs"][0]["stderr_end"] is None
