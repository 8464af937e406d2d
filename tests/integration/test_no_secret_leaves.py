"""Over a hundred secrets go in, by every way there is; none comes out where it does not belong."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.support.both_stores import BOTH, POSTGRES
from tests.support.canaries import Canaries
from tests.support.otlp_sink import Answer, OtlpSink, Request
from tests.support.poll_until import poll_until
from tests.support.service import Service
from tests.support.webhook_receiver import WebhookReceiver
from tests.support.webhooks import secret_file

TEMPLATES = """
[templates.leaky]
description = "Say everything that it knows"
command = ["sh", "-c", "env; cat in/*; echo $0 $1 >&2; exit 3", "{token}", "{plain}"]
pass_environment = ["PASSED"]
retry_exit_codes = []
[templates.leaky.parameters.token]
type = "string"
pattern = "[a-z0-9]+"
sensitive = true
[templates.leaky.parameters.plain]
type = "string"
"""
HEADERS = (
    *("Cookie", "X-Api-Key", "Proxy-Authorization", "X-Auth-Token", "X-Vault-Token", "X-Amz-Security-Token"),
    *("X-Csrf-Token", "Baggage", "Referer", "Origin", "From", "X-Forwarded-For", "Forwarded", "X-Real-Ip"),
    *("X-Session", "If-None-Match", "Range", "X-Goog-Iap-Jwt-Assertion", "Tracestate", "Traceparent"),
)
SCHEMES = (
    "",
    "Basic ",
    "Bearer ",
    "bearer  ",
    "Digest username=",
    "Negotiate ",
    "Bearer atk_",
    "Bearer atk_x_",
    "Token ",
)
URLS = (
    *("postgresql://user:p@{0}@127.0.0.1:1/x", "postgres://u:p {0}@h/db?password={0}", "sqlite:///x?key={0}"),
    *("http//user:{0}@h", "https://{0}@h:x/", "https://u:{0}@[::1/x", "host=127.0.0.1 password='{0}'", "foo://a:{0}@b"),
)
URL_SETTINGS = (
    *(
        "AUDITRACE_DATABASE",
        "AUDITRACE_AUDIT_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ),
    *("AUDITRACE_JWT_JWKS", "AUDITRACE_TRACE_URL_TEMPLATE", "HTTP_PROXY"),
)
DATABASE, ANSWERS, DELIVERED, OUTPUT = "database", "answers", "delivered", "output"


class Sweep:
    """A service that secrets are given to, and everything that comes out of it."""

    def __init__(self, service: Service, canaries: Canaries) -> None:
        self.service = service
        self.canaries = canaries
        self.answers: list[bytes] = []
        self.output: list[bytes] = []
        self.http = httpx.Client(base_url=service.url, timeout=30)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> httpx.Response:
        """Send a request, and keep the answer."""
        answer = self.http.request(method, path, headers=headers, content=content)
        self.answers.append(repr(answer.headers.raw).encode() + answer.content)
        return answer

    def command(self, *arguments: str, **variables: str) -> None:
        """Run a command with more variables, and keep what it prints."""
        before = dict(self.service.environment)
        self.service.environment |= variables
        done = self.service.command(*arguments, check=False)
        self.service.environment = before
        self.output += [done.stdout.encode(), done.stderr.encode()]


def _strangers(sweep: Sweep) -> None:
    """Send secrets without a valid credential, and in places of a valid request that nobody asked for."""
    new, key = sweep.canaries.new, {"Authorization": f"Bearer {sweep.service.admin()}"}
    for scheme in SCHEMES:
        sweep.ask("GET", "/v1/me", {"Authorization": scheme + new(f"credential {scheme!r}")})
    for name in HEADERS:
        sweep.ask("GET", "/v1/me", {name: new(f"header {name} of a stranger")})
        sweep.ask("GET", "/v1/jobs", {name: new(f"header {name} of a client"), **key})
    for name in ("access_token", "api_key", "password", "token", "sig"):
        sweep.ask("GET", f"/v1/me?{name}={new(f'query {name} of a stranger')}")
        sweep.ask("GET", f"/v1/jobs?{name}={new(f'query {name} of a client')}", key)
    for body in ('{{"template": "leaky", "parameters": {{"token": {0}', '{{"secret": "{0}"}}', '"{0}"', "{0}"):
        sweep.ask("POST", "/v1/jobs", key, body.format(new(f"malformed body {body}")).encode())


def _jobs(sweep: Sweep) -> None:
    """Run a job that prints its sensitive parameter, and one whose value is refused.

    What a command prints is kept byte for byte, so the printed value is in the artifact in the database.
    """
    new, client = sweep.canaries.new, sweep.service.client()
    key = {"Authorization": f"Bearer {sweep.service.admin()}"}
    wrong = {"template": "leaky", "parameters": {"token": "A-" + new("refused sensitive value"), "plain": "x"}}
    agent = {"User-Agent": new("user agent", DATABASE, ANSWERS, DELIVERED, may=["webhooks"])}
    sweep.ask("POST", "/v1/jobs", {**key, **agent}, json.dumps(wrong).encode())
    job = client.create(
        "leaky",
        token=new("sensitive value", may=[DATABASE]),
        plain=new("plain value", DATABASE, ANSWERS, may=[DELIVERED, "webhooks"]),
    )
    path = f"/v1/jobs/{job['id']}"
    sweep.ask("PUT", f"{path}/inputs/file", key, new("input", DATABASE).encode())
    for step in ("draft", "run"):
        sweep.ask("POST", f"{path}/{step}", key)
    client.until(job["id"], "failed")
    listed = (path, f"{path}/runs", f"{path}/audit", "/v1/jobs", "/v1/audit/records?limit=1000", "/v1/audit/export")
    for one in (*listed, "/v1/templates", "/v1/audit/streams", "/metrics", "/health/ready", "/", "/explorer.js"):
        sweep.ask("GET", one, key)


def _commands(sweep: Sweep) -> None:
    """Give commands URLs with secrets, by variable and by argument, malformed ones too."""
    new = sweep.canaries.new
    for url in URLS:
        variables = {name: url.format(new(f"{url} as {name}")) for name in URL_SETTINGS}
        more = {"AUDITRACE_JWT_ISSUER": "https://id.example", "AUDITRACE_JWT_AUDIENCE": "a"}
        sweep.command("doctor", **variables, **more)
        sweep.command("verify", "--without-key", "--database", url.format(new(f"{url} as --database")))
    sweep.command("keys", "list")
    sweep.command("doctor")


def _text_of(url: str) -> Iterator[bytes]:
    with psycopg.connect(url) as session:
        session.execute("SET bytea_output = 'escape'")
        tables = session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for (row,) in session.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))):
                yield str(row).encode()


@pytest.mark.parametrize("store_kind", BOTH)
def test_no_secret_leaves(tmp_path: Path, request: pytest.FixtureRequest, store_kind: str) -> None:
    """Database, archive, spans, metrics, logs, answers, webhooks, process titles and files hold none of them."""
    canaries, sent, folder = Canaries(), list[bytes](), tmp_path / "service"

    def keep(arrived: Request) -> Answer:
        sent.append(arrived.message.SerializeToString())
        return Answer()

    with OtlpSink(keep) as sink, WebhookReceiver() as receiver:
        hook = receiver.url.replace("/hook", f"/{canaries.new('path of a webhook')}?k={canaries.new('its query')}")
        files = {name: tmp_path / name for name in ("webhooks.toml", "token", "passphrase", "pgpass")}
        for name, path in files.items():
            path.touch(0o600)
            path.write_text(canaries.new(f"file {name}"))
        secret = secret_file(tmp_path)
        files["webhooks.toml"].write_text(
            f'[endpoints.hook]\nurl = "{hook}"\nallow_private = true\nfrom_start = true\nsecret_file = "{secret}"\n'
        )
        settings = {
            "AUDITRACE_WEBHOOKS": str(files["webhooks.toml"]),
            "AUDITRACE_AUDIT_ENDPOINT": f"{sink.http_endpoint}/v1/logs?key={canaries.new('query of the endpoint')}",
            "AUDITRACE_AUDIT_TOKEN_FILE": str(files["token"]),
            "AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE": str(files["passphrase"]),
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.http_endpoint,
            "HTTPS_PROXY": f"http://u:{canaries.new('password of a proxy')}@127.0.0.1:9",
            "PASSED": canaries.new("environment that is passed", may=[DATABASE]),
            "PGPASSFILE": str(files["pgpass"]),
        }
        for name in ("TRACES_", "METRICS_", "LOGS_", ""):
            settings[f"OTEL_EXPORTER_OTLP_{name}HEADERS"] = f"x-key={canaries.new(f'header {name}of OTLP')}"
        for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD", "PGPASSWORD", "GITHUB_TOKEN", "SECRET"):
            settings[name] = canaries.new(f"environment {name}")
        if store_kind == POSTGRES:
            server = request.getfixturevalue("postgres_server")
            settings["AUDITRACE_DATABASE"] = server.create_database()
        service = Service(folder, settings)
        (folder / "jobs.toml").write_text(TEMPLATES)
        with service:
            canaries.allowed[service.admin().rpartition("_")[2]] = ("the key of the administrator", frozenset())
            ledger_secret = (folder / "keys" / "ledger.secret").read_text().strip()
            canaries.allowed[ledger_secret] = ("the ledger secret", frozenset())
            sweep = Sweep(service, canaries)
            _strangers(sweep)
            _jobs(sweep)
            _commands(sweep)
            assert service.process is not None
            titles = [Path(f"/proc/{service.process.pid}/{name}").read_bytes() for name in ("cmdline", "comm")]
            poll_until(lambda: bool(receiver.kept()), "a webhook")
        places = {
            DATABASE: list(_text_of(settings["AUDITRACE_DATABASE"]))
            if store_kind == POSTGRES
            else [path.read_bytes() for path in folder.glob("auditrace.db*") if path.is_file()],
            ANSWERS: sweep.answers,
            DELIVERED: sent,
            OUTPUT: [*sweep.output, service.log.read_bytes(), "\n".join(service.said).encode()],
            "webhooks": [arrival.body for arrival in receiver.kept()],
            "process titles": titles,
            "files": [path.read_bytes() for path in Path(folder).rglob("core*") if path.is_file()],
        }
    assert len(canaries.allowed) >= 100
    leaks = canaries.leaks(places)
    assert not leaks, "\n".join(leaks)
    missed = canaries.missed(places)
    assert not missed, "\n".join(missed)
