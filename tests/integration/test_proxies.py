"""A real service behind a proxy: its records arrive through it, and doctor says so without the proxy's password."""

from pathlib import Path

from tests.support.otlp_sink import OtlpSink
from tests.support.poll_until import poll_until
from tests.support.proxies import Proxy
from tests.support.service import Service


def test_a_service_delivers_through_a_socks_proxy(tmp_path: Path) -> None:
    """The collector's name is one that only the proxy can resolve; NO_PROXY has forms that httpx alone would refuse."""
    with OtlpSink() as server, Proxy("me:s3cret", {"collector.invalid": "127.0.0.1"}) as proxy:
        port = server.http_endpoint.rpartition(":")[2]
        settings = {
            "AUDITRACE_AUDIT_ENDPOINT": f"http://collector.invalid:{port}/v1/logs",
            "ALL_PROXY": f"socks5://me:s3cret@{proxy.address}",
            "NO_PROXY": "[::1],fe80::/10",
        }
        with Service(tmp_path, settings) as service:
            service.client().create("greet", name="you")
            poll_until(
                lambda: any(each.record.event_name == "job.create" for each in server.log_records()), "the job's record"
            )
            told = service.command("doctor", check=False).stdout
        assert f"http://collector.invalid:{port}/v1/logs through socks5://{proxy.address}" in told
        assert "s3cret" not in told + service.log.read_text()
        assert {one.partition(" ")[2] for one in proxy.asked} == {f"collector.invalid:{port}"}
