"""The settings: read once from the environment, checked together, all problems reported at once."""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from service.errors import SettingsError
from service.units import parse_duration_ms, parse_size_bytes
from service.variables import service_links, unknown_variables

T = TypeVar("T")

_MOST_DIGITS: Final = 18
MAX_PORT: Final = 65_535
MAX_LANES: Final = 64

_SHIPPED_TEMPLATES: Final = (Path(__file__).parent / "jobs" / "jobs.toml", Path(__file__).parents[1] / "jobs.toml")


def shipped_templates() -> Path:
    """Return the templates that this version ships: inside the installed package, or at the top of its sources."""
    packaged, source = _SHIPPED_TEMPLATES
    return packaged if packaged.exists() else source


class JwtSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How JSON Web Tokens are accepted; `jwks` is a file or an https URL."""

    issuer: str
    audience: str
    jwks: str
    roles_claim: str
    tenant_claim: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set; `docs/configuration.md` describes each."""

    database: str
    needs_standby: bool
    """Whether a PostgreSQL must have a standby that confirms commits."""
    audit_endpoint: str | None
    audit_token_file: Path | None
    archive: Path
    archive_max_bytes: int
    templates: Path
    signing_key: Path
    signing_key_passphrase: Path | None
    ledger_secret: Path
    admin_key: Path
    host: str
    port: int
    trace_url_template: str | None
    lanes: int | None
    """None: as many as the database has use for."""
    worker_slots: int
    run_lease_ms: int
    run_renew_ms: int
    shutdown_grace_ms: int
    checkpoint_interval_ms: int
    self_check_interval_ms: int
    max_input_bytes: int
    min_free_bytes: int
    work_folder: Path | None
    jwt: JwtSettings | None
    environment: Mapping[str, str]
    """The whole environment: for the `OTEL_*` variables, and for names that templates pass through."""
    problems: Sequence[str] = ()
    """What is wrong with the variables, in whose place defaults stand: nothing may be started while there is any."""


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process.

    Args:
        environment: the variables; that of the process when None.

    Raises:
        SettingsError: listing every variable that is wrong, with what it should be.
    """
    settings = examine_settings(environment)
    if settings.problems:
        raise SettingsError(settings.problems)
    return settings


def examine_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings together with what is wrong with them, for those who look at more before they say so."""
    environment = _of_this_process() if environment is None else environment
    links = frozenset(service_links(environment))
    reader = _Reader({name: value for name, value in environment.items() if name not in links})
    settings = _settings(reader, environment)
    if settings.run_renew_ms * 2 > settings.run_lease_ms:
        reader.problems.append("AUDITRACE_RUN_RENEW must be at most half of AUDITRACE_RUN_LEASE")
    reader.problems.extend(unknown_variables(reader.environment, reader.known))
    return msgspec.structs.replace(settings, problems=tuple(reader.problems))


def _of_this_process() -> Mapping[str, str]:
    for name in [name for name, value in os.environ.items() if name.startswith("OTEL_") and not value.strip()]:
        # Not set, by the specification; the SDK, which reads it itself, would take it for a wrong number.
        del os.environ[name]
    return os.environ.copy()


@contextmanager
def without_otel_variables() -> Generator[None]:
    """Hide the `OTEL_*` variables within the block, in which the SDK is loaded.

    It reads some of them while it is loaded, and ends the process, or logs a traceback, for one that is wrong, before
    anything can say in a line which ones are.
    """
    hidden = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def variables() -> Sequence[str]:
    """Return the names of all settings, sorted."""
    reader = _Reader({})
    _settings(reader, {})
    return sorted(reader.known)


def _settings(reader: "_Reader", environment: Mapping[str, str]) -> Settings:
    return Settings(
        database=reader.text("AUDITRACE_DATABASE", "sqlite:///var/auditrace.db"),
        needs_standby=reader.choice("AUDITRACE_POSTGRES_STANDBY", "required", "optional") == "required",
        audit_endpoint=reader.get("AUDITRACE_AUDIT_ENDPOINT"),
        audit_token_file=reader.path("AUDITRACE_AUDIT_TOKEN_FILE"),
        archive=Path(reader.text("AUDITRACE_AUDIT_ARCHIVE", "var/archive/audit.jsonl")),
        archive_max_bytes=reader.parsed("AUDITRACE_AUDIT_ARCHIVE_MAX", "100MiB", parse_size_bytes),
        templates=reader.templates(),
        signing_key=Path(reader.text("AUDITRACE_SIGNING_KEY", "var/keys/signing.pem")),
        signing_key_passphrase=reader.path("AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE"),
        ledger_secret=Path(reader.text("AUDITRACE_LEDGER_SECRET", "var/keys/ledger.secret")),
        admin_key=Path(reader.text("AUDITRACE_ADMIN_KEY", "var/keys/admin.key")),
        host=reader.text("AUDITRACE_HOST", "127.0.0.1"),
        port=reader.number("AUDITRACE_PORT", "8080", 0, MAX_PORT, instead="0"),
        trace_url_template=reader.trace_url_template(),
        lanes=reader.optional_number("AUDITRACE_LANES", 1, MAX_LANES),
        worker_slots=reader.number("AUDITRACE_WORKER_SLOTS", "2", 1, 256),
        run_lease_ms=reader.duration_ms("AUDITRACE_RUN_LEASE", "60s", "1s", "24h"),
        run_renew_ms=reader.duration_ms("AUDITRACE_RUN_RENEW", "10s", "100ms", "12h"),
        shutdown_grace_ms=reader.duration_ms("AUDITRACE_SHUTDOWN_GRACE", "20s", "0s", "24h"),
        checkpoint_interval_ms=reader.duration_ms("AUDITRACE_CHECKPOINT_INTERVAL", "60s", "1s", "24h"),
        self_check_interval_ms=reader.duration_ms("AUDITRACE_SELF_CHECK_INTERVAL", "60s", "1s", "24h"),
        max_input_bytes=reader.parsed("AUDITRACE_MAX_INPUT", "8MiB", parse_size_bytes),
        min_free_bytes=reader.parsed("AUDITRACE_MIN_FREE", "64MiB", parse_size_bytes),
        work_folder=reader.path("AUDITRACE_WORK_FOLDER"),
        jwt=reader.jwt(),
        environment=environment,
    )


class _Reader:
    """Reads variables and collects what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[str] = []
        self.known: set[str] = set()
        """The names that were asked for."""

    def get(self, name: str) -> str | None:
        self.known.add(name)
        # An empty variable means "not set", as the OpenTelemetry specification has it for its own.
        return self.environment.get(name) or None

    def text(self, name: str, default: str) -> str:
        return self.get(name) or default

    def path(self, name: str) -> Path | None:
        text = self.get(name)
        return Path(text) if text else None

    def parsed(self, name: str, default: str, parse: Callable[[str], T], instead: str | None = None) -> T:
        """Return the value; in the place of one that is wrong `instead`, or the default."""
        try:
            return parse(self.text(name, default))
        except ValueError as error:
            self.problems.append(f"{name}: {error}")
            return parse(instead or default)

    def number(self, name: str, default: str, low: int, high: int, instead: str | None = None) -> int:
        def parse(text: str) -> int:
            is_whole = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
            if not (is_whole and low <= int(text) <= high):
                raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
            return int(text)

        return self.parsed(name, default, parse, instead)

    def duration_ms(self, name: str, default: str, shortest: str, longest: str) -> int:
        def parse(text: str) -> int:
            milliseconds = parse_duration_ms(text)
            if not parse_duration_ms(shortest) <= milliseconds <= parse_duration_ms(longest):
                raise ValueError(f"{text} is not between {shortest} and {longest}")
            return milliseconds

        return self.parsed(name, default, parse)

    def choice(self, name: str, default: str, *others: str) -> str:
        def parse(text: str) -> str:
            if text not in (default, *others):
                raise ValueError(f"{text!r} is not {' or '.join((default, *others))}")
            return text

        return self.parsed(name, default, parse)

    def optional_number(self, name: str, low: int, high: int) -> int | None:
        return self.number(name, str(low), low, high) if self.get(name) else None

    def templates(self) -> Path:
        named = self.get("AUDITRACE_TEMPLATES")
        if named:
            return Path(named)
        # A link to nowhere is meant too, and a folder that cannot be searched has none.
        return Path("jobs.toml") if os.path.lexists("jobs.toml") else shipped_templates()

    def trace_url_template(self) -> str | None:
        template = self.get("AUDITRACE_TRACE_URL_TEMPLATE")
        if template is not None and "{trace_id}" not in template:
            self.problems.append("AUDITRACE_TRACE_URL_TEMPLATE must hold {trace_id}")
        return template

    def jwt(self) -> JwtSettings | None:
        names = ("AUDITRACE_JWT_ISSUER", "AUDITRACE_JWT_AUDIENCE", "AUDITRACE_JWT_JWKS")
        values = [self.get(name) or "" for name in names]
        roles_claim = self.text("AUDITRACE_JWT_ROLES_CLAIM", "roles")
        tenant_claim = self.text("AUDITRACE_JWT_TENANT_CLAIM", "tenant")
        if not any(values):
            return None
        if not all(values):
            missing = ", ".join(name for name, value in zip(names, values, strict=True) if not value)
            self.problems.append(f"to accept tokens, set {missing} too")
            return None
        issuer, audience, jwks = values
        return JwtSettings(
            issuer=issuer,
            audience=audience,
            jwks=jwks,
            roles_claim=roles_claim,
            tenant_claim=tenant_claim,
        )
