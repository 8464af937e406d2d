"""Checks pinned packages against known vulnerabilities with pip-audit: `audit.py [--snapshot] REQUIREMENTS…`.

It asks osv.dev. Where that cannot be reached, and with `--snapshot`, it asks the snapshot in advisories.json, and says
of which day that is. Then it also fails for a package that the snapshot does not cover.
Exit status: 0 none is vulnerable, 1 at least one is, or was not checked.
"""

import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from packaging.version import Version
from snapshot import ADVISORIES, pinned

_OSV = ("api.osv.dev", 443)
_CONNECT_S = 5.0


def main(arguments: list[str]) -> int:
    """Audit each requirement file."""
    files = [Path(argument) for argument in arguments if argument != "--snapshot"]
    if "--snapshot" not in arguments and _is_reachable():
        return max(_pip_audit(file, "--vulnerability-service", "osv") for file in files)
    stored = json.loads(ADVISORIES.read_text(encoding="utf-8"))
    sys.stdout.write(f"osv.dev is not asked: these are the advisories of {stored['date']}, {stored['source']}\n")
    unknown = sorted({name for file in files for name in pinned(file)} - set(stored["packages"]))
    for name in unknown:
        sys.stdout.write(f"{name}: the snapshot does not cover it; make it again with snapshot.py\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), _answers_of(stored["advisories"])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/query"
        found = [_pip_audit(file, "--vulnerability-service", "osv", "--osv-url", url) for file in files]
        server.shutdown()
    return max(*found, int(bool(unknown)))


def affects(advisory: dict, name: str, version: str) -> bool:
    """Return whether an advisory is about this version of a package (OSV schema, "Evaluation")."""
    return any(
        version in affected["versions"] or any(_holds(span["events"], Version(version)) for span in affected["ranges"])
        for affected in advisory["affected"]
        if affected["package"]["name"].lower() == name
    )


def _holds(events: list[dict[str, str]], version: Version) -> bool:
    is_affected = False
    for event in sorted(events, key=lambda event: Version(next(iter(event.values())))):
        kind, bound = next(iter(event.items()))
        if kind == "introduced" and version >= Version(bound):
            is_affected = True
        if (kind == "fixed" and version >= Version(bound)) or (kind == "last_affected" and version > Version(bound)):
            is_affected = False
    return is_affected


def _answers_of(advisories: list[dict]) -> type[BaseHTTPRequestHandler]:
    class Answers(BaseHTTPRequestHandler):
        """The query of osv.dev (POST /v1/query), answered from the snapshot."""

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            name, version = asked["package"]["name"], asked["version"]
            answer = json.dumps({"vulns": [found for found in advisories if affects(found, name, version)]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing: pip-audit reports what matters."""

    return Answers


def _is_reachable() -> bool:
    try:
        socket.create_connection(_OSV, _CONNECT_S).close()
    except OSError:
        return False
    return True


def _pip_audit(requirements: Path, *options: str) -> int:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--require-hashes"]
    sys.stdout.write(f"{requirements}:\n")
    sys.stdout.flush()
    return subprocess.run([*command, "--disable-pip", "--progress-spinner", "off", *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
