"""An idle service whose disk takes no more writes says that it is not ready, and is ready again by itself."""

from pathlib import Path

from tests.support.poll_until import poll_until
from tests.support.service import Client, Service
from tests.support.volumes import fill, small_volume


def _ready(client: Client) -> tuple[int, dict[str, str]]:
    answer = client.http.get("/health/ready")
    return answer.status_code, answer.json()["checks"]


def test_a_full_disk_is_seen_by_an_idle_service(tmp_path: Path) -> None:
    """Reads go on, so that only a write can tell; once there is room the next trial says so."""
    with small_volume(tmp_path / "disk", 16 << 20) as disk:
        settings = {
            "AUDITRACE_MIN_FREE": "0KiB",
            "AUDITRACE_DATABASE": f"sqlite:///{disk / 'auditrace.db'}",
            "AUDITRACE_CHECKPOINT_INTERVAL": "1h",
        }
        with Service(tmp_path / "service", settings) as service:
            client = service.client()
            job_id = client.create("greet", name="you")["id"]
            assert _ready(client)[0] == 200
            ballast = fill(disk)
            poll_until(lambda: _ready(client)[0] == 503, "the service to be not ready")
            _, checks = _ready(client)
            assert checks["writes"].startswith("failed: changes cannot be committed: the disk has no room")
            assert str(tmp_path) not in checks["writes"]
            assert checks["ledger"] == "ok"
            assert client.get(f"/v1/jobs/{job_id}")["status"] == "created"
            assert "changes cannot be committed" in service.log.read_text()
            ballast.unlink()
            poll_until(lambda: _ready(client)[0] == 200, "the service to be ready again")
            client.create("greet", name="you")
            assert "changes are committed again" in service.log.read_text()
