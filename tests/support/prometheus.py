"""Runs a real Prometheus, as `make tools` built it, and asks its query API.

It takes metrics by OTLP, as the collector sends them, and scrapes what its configuration names.
"""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.backends import Backend
from tests.support.collector import ROOT

SHIPPED = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
ALERTS = ROOT / "deploy" / "alerts"


class Prometheus(Backend):
    """A metrics backend with the shipped configuration and alert rules, looked at every second.

    Args:
        folder: gets its data, its configuration and its log.
        targets: `host:port` of the collector's own metrics, and of whatever else is to be scraped.
    """

    name = "prometheus"

    def __init__(self, folder: Path, targets: Sequence[str] = ()) -> None:
        super().__init__(folder, 1)
        self.targets = [*targets]

    @property
    def otlp_endpoint(self) -> str:
        """OTLP/HTTP base URL, as `METRICS_ENDPOINT` takes it."""
        return f"http://{self.addresses[0]}/api/v1/otlp"

    def arguments(self) -> Sequence[str]:
        """Return the command line behind the binary."""
        path = self.folder / "prometheus.yaml"
        configuration = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(ALERTS / "*.rules.yaml")]
        configuration["scrape_configs"][0]["static_configs"] = [{"targets": self.targets}]
        path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        return (
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.addresses[0]}",
            "--web.enable-otlp-receiver",
            "--enable-feature=exemplar-storage",
        )

    def health_url(self) -> str:
        """Return what answers 200 once requests are served."""
        return f"http://{self.addresses[0]}/-/ready"

    def query(self, promql: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the instant vector of a query: labels and value of each series."""
        answer = self.get("/api/v1/query", query=promql)
        if answer["resultType"] == "scalar":
            return [({}, float(answer["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in answer["result"]]

    def exemplars(self, promql: str, start_s: float, end_s: float) -> list[Mapping[str, Any]]:
        """Return the exemplars of the series that a query selects."""
        answer = self.get("/api/v1/query_exemplars", query=promql, start=start_s, end=end_s)
        return [exemplar for series in answer for exemplar in series["exemplars"]]

    def alerts(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        return {
            alert["labels"]["alertname"] for alert in self.get("/api/v1/alerts")["alerts"] if alert["state"] == "firing"
        }

    def names(self) -> set[str]:
        """Return the names of all its series."""
        return set(self.get("/api/v1/label/__name__/values"))

    def get(self, path: str, **parameters: object) -> Any:
        """Return the `data` of an answer of its API.

        Raises:
            urllib.error.HTTPError: it refused the question.
        """
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.addresses[0]}{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]
