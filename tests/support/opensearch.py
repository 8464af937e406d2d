"""Runs one node of OpenSearch, as deploy/opensearch/build.sh built it, and asks and fills it as operators do."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.backends import Backend
from tests.support.collector import ROOT

SCRIPTS = ROOT / "deploy" / "opensearch"
FILLED = "ss4o_logs-auditrace-2*"
"""The indexes that load.sh fills, one for each month."""


class OpenSearch(Backend):
    """The server's own code with its HTTP module and none of its other modules and plugins."""

    name = "opensearch"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 1)

    @property
    def url(self) -> str:
        """What `$OPENSEARCH` stands for in the documents."""
        return f"http://{self.addresses[0]}"

    def arguments(self) -> Sequence[str]:
        """Returns the command line behind the binary."""
        return (str(self.folder / "node"), self.addresses[0].rpartition(":")[2])

    def settings(self) -> Mapping[str, str]:
        """Returns the environment: where Java is."""
        return {"PATH": os.environ["PATH"]}  # noqa: TID251 - of the test run

    def health_url(self) -> str:
        """Returns what answers 200 once requests are served."""
        return f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s"

    def shell(self, script: str, archive: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a script as an operator would in a checkout, with `$OPENSEARCH` and `$ARCHIVE` set."""
        environment = {**self.settings(), "OPENSEARCH": self.url, "ARCHIVE": str(archive or self.folder)}
        return subprocess.run(
            ["sh", "-euc", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )

    def search(self, query: str, index: str = FILLED) -> dict[str, Any]:
        """Returns what `_search` answers to a query."""
        status, answer = self.ask("POST", f"{index}/_search", query)
        assert status == 200, answer
        return answer

    def index(self, index: str, document: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Stores a document, so that searches see it, as the answer's status and body say."""
        return self.ask("POST", f"{index}/_doc?op_type=create&refresh=true", json.dumps(document))

    def ask(self, method: str, path: str, body: str) -> tuple[int, dict[str, Any]]:
        """Returns status and body of an answer, whatever the status is."""
        request = urllib.request.Request(
            f"{self.url}/{path}", body.encode(), {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
