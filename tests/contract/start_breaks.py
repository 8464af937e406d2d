"""What can stop a start: how to make it so in a folder, the row of `doctor` that says it, and a part of each line."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

SECRET: Final = "s3cret"
KEYS: Final = "var/keys"
DATABASE: Final = "var/auditrace.db"

Break = Callable[[Path], Mapping[str, str]]
"""Breaks something in a folder, and returns variables to set; `{folder}` in a value is the folder."""


def _set(**variables: str) -> Break:
    return lambda _: variables


def private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file of this mode, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(content)
    path.chmod(mode)


def _file(name: str, content: bytes = b"", mode: int = 0o600, **variables: str) -> Break:
    def make(folder: Path) -> Mapping[str, str]:
        private(folder / name, content, mode)
        return variables

    return make


def _link(name: str, **variables: str) -> Break:
    def make(folder: Path) -> Mapping[str, str]:
        path = folder / name
        path.unlink(missing_ok=True)
        path.symlink_to("nowhere")
        return variables

    return make


def _folder(name: str, **variables: str) -> Break:
    def make(folder: Path) -> Mapping[str, str]:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)
        return variables

    return make


def _mode(name: str, mode: int, **variables: str) -> Break:
    def change(folder: Path) -> Mapping[str, str]:
        (folder / name).chmod(mode)
        return variables

    return change


def _remove(name: str) -> Break:
    def remove(folder: Path) -> Mapping[str, str]:
        (folder / name).unlink()
        return {}

    return remove


def _newer(folder: Path) -> Mapping[str, str]:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    return {}


def _foreign(folder: Path) -> Mapping[str, str]:
    (folder / "var").mkdir()
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("CREATE TABLE recipes (text)")
        connection.execute("PRAGMA user_version = 1")
    return {}


def _encrypted(folder: Path) -> Mapping[str, str]:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    private(folder / KEYS / "signing.pem", pem)
    return {}


OTLP = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
_HTTPS = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://127.0.0.1:9", "OTEL_LOGS_EXPORTER": "none"}
_GRPC = {"AUDITRACE_AUDIT_ENDPOINT": "grpc://127.0.0.1:9"}
JWT = {"AUDITRACE_JWT_ISSUER": "https://id.example", "AUDITRACE_JWT_AUDIENCE": "auditrace"}

# By what is wrong: how to make it so in an empty folder, the row that says it, and a part of each line.
BEFORE_THE_FIRST_START: dict[str, tuple[Break, str, list[str]]] = {
    "a number that is none": (_set(AUDITRACE_PORT="x"), "settings", ["AUDITRACE_PORT: 'x' is not a whole number"]),
    "a name that is none": (_set(AUDITRACE_PROT="1"), "settings", ["did you mean AUDITRACE_PORT?"]),
    "a lease that ends at once": (
        _set(AUDITRACE_RUN_LEASE="0s", AUDITRACE_RUN_RENEW="0s"),
        "settings",
        ["AUDITRACE_RUN_LEASE: 0s is not between 1s and 24h", "AUDITRACE_RUN_RENEW: 0s is not between 100ms and 12h"],
    ),
    "times without end": (
        _set(AUDITRACE_RUN_LEASE="999999999d", AUDITRACE_SHUTDOWN_GRACE="999999999d"),
        "settings",
        ["AUDITRACE_RUN_LEASE: 999999999d is not", "AUDITRACE_SHUTDOWN_GRACE: 999999999d is not between 0s and 24h"],
    ),
    "two that do not fit": (_set(AUDITRACE_RUN_RENEW="50s"), "settings", ["at most half of AUDITRACE_RUN_LEASE"]),
    "half of an issuer": (_set(AUDITRACE_JWT_ISSUER="x"), "settings", ["set AUDITRACE_JWT_AUDIENCE, AUDITRACE_JWT_J"]),
    "an issuer that is called as actors without a token": (
        _set(AUDITRACE_JWT_ISSUER="Key", AUDITRACE_JWT_AUDIENCE="a", AUDITRACE_JWT_JWKS="https://id.example/"),
        "settings",
        ["AUDITRACE_JWT_ISSUER: Key is what records say of actors that have no token"],
    ),
    "an issuer that ends with nothing": (
        _set(AUDITRACE_JWT_ISSUER="https://id.example\u200b"),
        "settings",
        ["AUDITRACE_JWT_ISSUER: it has a character that nobody sees", "set AUDITRACE_JWT_AUDIENCE, AUDI"],
    ),
    "no such address": (_set(AUDITRACE_HOST="192.0.2.1"), "listening", ["cannot listen on 192.0.2.1:0: Cannot assign"]),
    "no such host": (_set(AUDITRACE_HOST="a..b"), "listening", ["cannot listen on a..b:0"]),
    "another kind of database": (
        _set(AUDITRACE_DATABASE=f"mysql://me:{SECRET}@host/x"),
        "database",
        ["AUDITRACE_DATABASE is mysql://…; expected sqlite:///path/to/file.db, or postgresql://"],
    ),
    "a database that is a folder": (
        _folder("x.db", AUDITRACE_DATABASE="sqlite:///x.db"),
        "database",
        ["is no file"],
    ),
    "a folder that is a file": (_file("var"), "database", ["var is no folder"] * 5),
    "a folder that is a link to nowhere": (
        _link("data", AUDITRACE_DATABASE="sqlite:///data/x.db"),
        "database",
        ["link"],
    ),
    "two lanes on a file": (_set(AUDITRACE_LANES="2"), "database", ["AUDITRACE_LANES is 2"]),
    "a file that is no database": (_file(DATABASE, b"no database" * 1000), "database", ["file is not a database"]),
    "the database of another program": (_foreign, "database", ["auditrace.db is the database of another program"]),
    "no server": (
        _set(AUDITRACE_DATABASE="postgresql://127.0.0.1:{port}/x"),
        "database",
        ["cannot be used"],
    ),
    "no templates": (_set(AUDITRACE_TEMPLATES="x.toml"), "templates", ["x.toml cannot be read: No such file"]),
    "templates that are a folder": (_folder("jobs.toml"), "templates", ["jobs.toml cannot be read: Is a directory"]),
    "templates that link nowhere": (_link("jobs.toml"), "templates", ["jobs.toml cannot be read: No such file"]),
    "templates that are no TOML": (_file("jobs.toml", b"[x"), "templates", ["jobs.toml is not TOML"]),
    "two mistakes in templates": (
        _file("jobs.toml", b"x = 1\n[templates.A]\ndescription = 'x'\ncommand = ['true']\n"),
        "templates",
        ["jobs.toml: .x: unknown key", "jobs.toml: templates.A"],
    ),
    "telemetry switched off": (_set(OTEL_SDK_DISABLED="true"), "telemetry", ["OTEL_TRACES_EXPORTER=none"]),
    "a configuration file": (_set(OTEL_CONFIG_FILE="otel.yaml"), "telemetry", ["OTEL_CONFIG_FILE: a configuration"]),
    "two wrong exporters": (
        _set(OTEL_TRACES_EXPORTER="zipkin", OTEL_METRICS_EXPORTER="statsd"),
        "telemetry",
        ["OTEL_TRACES_EXPORTER: 'zipkin'", "OTEL_METRICS_EXPORTER: 'statsd'"],
    ),
    "a batch that no queue takes": (
        _set(OTEL_BSP_MAX_QUEUE_SIZE="9"),
        "telemetry",
        ["is 512, and must not be"],
    ),
    "a provider that is not there": (
        _set(OTEL_PYTHON_METER_PROVIDER="x"),
        "telemetry",
        ["OTEL_PYTHON_METER_PROVIDER: 'x' is none of"],
    ),
    "a wrong endpoint": (
        _set(AUDITRACE_AUDIT_ENDPOINT="collector"),
        "delivery",
        ["'collector' is not a URL"],
    ),
    "no token": (
        _set(**_GRPC, AUDITRACE_AUDIT_TOKEN_FILE="token"),
        "delivery",
        ["AUDITRACE_AUDIT_TOKEN_FILE: there is no file token"],
    ),
    "a certificate that is none": (
        _file("ca.pem", b"no certificate", **_HTTPS, OTEL_EXPORTER_OTLP_CERTIFICATE="ca.pem"),
        "delivery",
        ["the files for https://127.0.0.1:9/ cannot be used"],
    ),
    "an archive that is something else": (
        _file("var/archive/audit.jsonl", b"other"),
        "delivery",
        ["is not an archive"],
    ),
    "an archive that is a folder": (
        _folder("var/archive/audit.jsonl"),
        "delivery",
        ["cannot be written: Is a directory"],
    ),
    "an archive of another ledger": (
        _file("var/archive/audit.jsonl", b'{"resourceLogs":[]}\n'),
        "delivery",
        ["the database is empty, and var/archive/audit.jsonl holds records of another one: name that one"],
    ),
    "a full archive of another ledger": (
        _file("var/archive/audit-2026-11-30T08-00-00.000.jsonl", b'{"resourceLogs":[]}\n'),
        "delivery",
        ["audit-2026-11-30T08-00-00.000.jsonl holds records of another one"],
    ),
    "a proxy of no kind": (
        _set(AUDITRACE_AUDIT_ENDPOINT="http://c.example/v1/logs", HTTP_PROXY=f"foo://me:{SECRET}@proxy"),
        "delivery",
        ["HTTP_PROXY: foo:// is none of http://, https://, socks5://, socks5h://"],
    ),
    "a proxy that gRPC cannot take": (_set(**_GRPC, ALL_PROXY="socks5://proxy"), "delivery", ["ALL_PROXY: gRPC takes"]),
    "an exception that is none": (
        _set(**OTLP, ALL_PROXY="http://proxy", NO_PROXY="10.0.0.0/99"),
        "delivery",
        ["NO_PROXY: '10.0.0.0/99' is no host"],
    ),
    "no passphrase": (
        _set(AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE="x"),
        "signing key",
        ["signing key x is missing"],
    ),
    "an encrypted key": (_encrypted, "signing key", ["set AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE"]),
    "a key that is none": (_file(f"{KEYS}/signing.pem", b"x"), "signing key", ["is not a PKCS#8 PEM file"]),
    "a secret that is short": (_file(f"{KEYS}/ledger.secret", b"x"), "ledger secret", ["is shorter than 32 bytes"]),
    "a folder in the place of a key": (
        _folder("x.key", AUDITRACE_ADMIN_KEY="x.key"),
        "admin key",
        ["is a folder"],
    ),
    "no key set": (
        _set(**JWT, AUDITRACE_JWT_JWKS="x.json"),
        "tokens",
        ["AUDITRACE_JWT_JWKS: there is no file x.json"],
    ),
    "a key set without keys": (
        _file("x.json", b"{}", **JWT, AUDITRACE_JWT_JWKS="x.json"),
        "tokens",
        ["is no set of keys"],
    ),
    "a key set over plain HTTP": (
        _set(**JWT, AUDITRACE_JWT_JWKS="http://id.example/"),
        "tokens",
        ["or an https:// URL"],
    ),
    "runs in a file": (_file("runs", AUDITRACE_WORK_FOLDER="runs"), "work folder", ["AUDITRACE_WORK_FOLDER: "]),
}

# The same over a ledger that has begun.
LATER: dict[str, tuple[Break, str, list[str]]] = {
    "a newer schema": (_newer, "database", ["written by a newer version"]),
    "no signing key": (_remove(f"{KEYS}/signing.pem"), "signing key", ["signing.pem is missing: restore"]),
    "a signing key that links nowhere": (
        _link(f"{KEYS}/signing.pem"),
        "signing key",
        ["is a link to a file"],
    ),
    "a folder in its place": (
        _folder(f"{KEYS}/signing.pem"),
        "signing key",
        ["it is a folder: AUDITRACE_SIGNING_KEY names a file"],
    ),
    "a signing key for all": (_mode(f"{KEYS}/signing.pem", 0o644), "signing key", ["chmod 600"]),
    "no secret": (_remove(f"{KEYS}/ledger.secret"), "ledger secret", ["ledger.secret is missing: restore"]),
    "another secret": (
        _file(f"{KEYS}/ledger.secret", b"o" * 32),
        "ledger secret",
        ["not the one that this"],
    ),
}

# Files that the process may not read or write; root may.
KEPT_OUT: dict[str, tuple[Break, str, list[str]]] = {
    "a database that cannot be read": (_mode(DATABASE, 0), "database", ["cannot be opened: Permission denied"]),
    "a folder that cannot be written": (_mode("var", 0o500), "database", ["var cannot be written: Permission denied"]),
    "a key that cannot be read": (_mode(f"{KEYS}/signing.pem", 0), "signing key", ["signing.pem cannot be read: Perm"]),
    "a secret that cannot be read": (
        _mode(f"{KEYS}/ledger.secret", 0),
        "ledger secret",
        ["ledger.secret cannot"],
    ),
    "templates that cannot be read": (
        _file("jobs.toml", b"", 0),
        "templates",
        ["cannot be read: Permission"],
    ),
    "a token that cannot be read": (
        _file("token", b"x", 0, **_GRPC, AUDITRACE_AUDIT_TOKEN_FILE="token"),
        "delivery",
        ["AUDITRACE_AUDIT_TOKEN_FILE: token cannot be read: Permission denied"],
    ),
    "an archive that cannot be written": (_mode("var/archive", 0o500), "delivery", ["cannot be written: Permission"]),
    "keys that cannot be searched": (_mode(KEYS, 0), "signing key", ["Permission denied", "Permission denied"]),
    "a key set that cannot be read": (
        _file("x.json", b"{}", 0, **JWT, AUDITRACE_JWT_JWKS="x.json"),
        "tokens",
        ["AUDITRACE_JWT_JWKS: x.json cannot be read: Permission denied"],
    ),
}
