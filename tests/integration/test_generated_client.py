"""A client that a stock generator makes of the OpenAPI document calls every operation of the real service."""

import importlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.support.poll_until import poll_until
from tests.support.service import START_S, Service

PACKAGE = "auditrace_generated_client"
CONFIG = f"project_name_override: {PACKAGE}\npackage_name_override: {PACKAGE}\npost_hooks: []\n"
EVERY_BYTE = bytes(range(256))


class Generated:
    """The generated client against a running service; it notes which requests went out.

    Args:
        service: the service whose document it is made of.
        folder: where it is generated.
    """

    def __init__(self, service: Service, folder: Path) -> None:
        self.document: dict[str, Any] = httpx.get(f"{service.url}/schema", timeout=START_S).json()
        (folder / "openapi.json").write_text(json.dumps(self.document), encoding="utf-8")
        (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
        generator = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
        paths = [
            "--path",
            folder / "openapi.json",
            "--config",
            folder / "config.yaml",
            "--output-path",
            folder / PACKAGE,
        ]
        done = subprocess.run([*generator, *paths], capture_output=True, text=True, check=False, timeout=START_S)
        assert done.returncode == 0, done.stdout + done.stderr
        # What it cannot make a function of, it only warns of.
        assert "warning" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr
        sys.path.insert(0, str(folder))
        try:
            self.models = importlib.import_module(f"{PACKAGE}.models")
            self.types = importlib.import_module(f"{PACKAGE}.types")
            clients = importlib.import_module(f"{PACKAGE}.client")
            self._modules = {name: self._module(tag, name) for _, _, tag, name in self.operations()}
        finally:
            sys.path.remove(str(folder))
        self.called: set[tuple[str, str]] = set()
        hooks = {"request": [self._note]}
        arguments: dict[str, Any] = {"httpx_args": {"event_hooks": hooks}, "timeout": httpx.Timeout(60)}
        self._client = clients.AuthenticatedClient(base_url=service.url, token=service.admin(), **arguments)

    def operations(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield method, path, tag and id of every operation of the document."""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation["tags"][0], operation["operationId"]

    def call(self, name: str, *arguments: Any, expect: int = 200, **more: Any) -> Any:
        """Call an operation, and return what the client makes of the answer."""
        answer = self._modules[name].sync_detailed(*arguments, client=self._client, **more)
        assert answer.status_code == expect, answer.content
        return answer.parsed

    def _module(self, tag: str, name: str) -> ModuleType:
        return importlib.import_module(f"{PACKAGE}.api.{tag}.{name}")

    def _note(self, request: httpx.Request) -> None:
        self.called.add((request.method, request.url.path))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """The client of a service of its own."""
    with Service(tmp_path_factory.mktemp("service"), {"AUDITRACE_CHECKPOINT_INTERVAL": "1s"}) as service:
        yield Generated(service, tmp_path_factory.mktemp("client"))


def test_every_operation_can_be_called(generated: Generated) -> None:
    """A whole story, bytes included: what is sent is taken, and each answer becomes what the document says.

    An operation that is not called here fails the test.
    """
    call, models = generated.call, generated.models
    assert call("live").status == "live"
    assert call("ready").checks["ledger"] == "ok"
    assert "# TYPE" in call("metrics")
    assert call("get_me").actor_id == "admin"
    assert "store" in {template.name for template in call("list_templates").templates}

    created = call("create_job", body=models.CreateJob(template="store"), idempotency_key="one", expect=201)
    again = call("create_job", body=models.CreateJob(template="store"), idempotency_key="one")
    assert again.id == created.id
    job_id = created.id
    upload = generated.types.File(payload=io.BytesIO(EVERY_BYTE), file_name="data.bin")
    assert call("put_input", job_id, "data.bin", body=upload).size == len(EVERY_BYTE)
    drafted = call("draft_job", job_id, if_match='"2"')
    assert drafted.status == "draft_ready"
    approval = models.ConfirmJob(confirmed=True, plan_sha256=drafted.plan.sha256, notes="sound", run=False)
    assert call("confirm_job", job_id, body=approval).status == "confirmed"
    call("run_job", job_id)
    job = call("get_job", job_id, wait="60s")
    assert (job.status, job.runs[0].exit_code) == ("succeeded", 0)
    assert {each.id for each in call("list_jobs", status=models.ListJobsStatus.SUCCEEDED).jobs} == {job_id}
    assert call("list_runs", job_id).runs[0].stderr_end is None
    listed = {each.name for each in call("list_artifacts", job_id, 1).artifacts}
    assert listed == {"stdout", "stderr", "out/data.bin"}
    assert call("get_artifact", job_id, 1, "out/data.bin").payload.read() == EVERY_BYTE

    failing = call("create_job", body=models.CreateJob(template="missing"), expect=201).id
    call("draft_job", failing)
    call("run_job", failing, body=models.NoMembers())
    assert "No such file" in call("get_job", failing, wait="60s").runs[0].stderr_end
    assert call("retry_job", failing).status == "queued"
    call("get_job", failing, wait="60s")
    spare = call("create_job", body=models.CreateJob(template="missing"), expect=201)
    assert call("cancel_job", spare.id, body=models.GivenReason(reason="not needed")).status == "cancelled"
    unwanted = call("create_job", body=models.CreateJob(template="missing"), expect=201).id
    call("draft_job", unwanted)
    assert call("reject_job", unwanted, body=models.RejectJob(reason="wrong")).rejection.reason == "wrong"
    refused = call("run_job", spare.id, expect=409)
    assert (refused.error_type, refused.audit.record_id) == ("transition_refused", refused.audit_record_id)

    receipt = created.audit
    trail = call("get_job_trail", job_id, limit=1000).records
    assert trail[-1].record_hash == receipt.record_hash
    assert call("get_record", receipt.record_id).sequence_number == receipt.sequence_number
    cancelled = call("list_records", event_name=[models.ListRecordsEventNameItem.JOB_CANCEL]).records
    assert [each.event_name for each in cancelled] == ["job.cancel"]
    assert receipt.stream_id in {stream.stream_id for stream in call("list_streams").streams}
    poll_until(lambda: call("get_proof", receipt.record_id).checkpoint is not None, "a checkpoint covers the record")
    assert call("list_checkpoints").checkpoints
    assert str(receipt.record_id) in call("export_records")

    key = call("create_key", body=models.CreateKey(name="ci-bot", roles=[models.CreateKeyRolesItem.VIEWER]), expect=201)
    assert call("rotate_key", key.id, body=models.RotateKey(overlap="10m")).key != key.key
    assert key.id in {each.id for each in call("list_keys").keys}
    assert call("revoke_key", key.id).revoked_at is not None

    not_called = [
        (method, path) for method, path, _, _ in generated.operations() if not _is_among(generated.called, method, path)
    ]
    assert not_called == []


def _is_among(called: set[tuple[str, str]], method: str, path: str) -> bool:
    pattern = re.compile(re.sub(r"{name}", ".+", re.sub(r"{(?!name)\w+}", "[^/]+", path)))
    return any(verb == method and pattern.fullmatch(sent) for verb, sent in called)


def test_what_is_not_called_is_noticed() -> None:
    """The check of the test above tells an operation from those whose paths begin alike."""
    called = {("GET", "/v1/jobs/1"), ("POST", "/v1/jobs")}
    assert _is_among(called, "GET", "/v1/jobs/{job_id}")
    assert not _is_among(called, "GET", "/v1/jobs")
    assert not _is_among(called, "GET", "/v1/jobs/{job_id}/runs")
