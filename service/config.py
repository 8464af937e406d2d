"""The settings: read once from the environment and checked; all problems are reported together."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from service.api.jwt_settings import JwtSettings
from service.api.proxy_settings import ProxySettings, header_name, trusted_proxies
from service.errors import SettingsError
from service.identifiers import as_seen, check_identifier
from service.operations.rates import Rate, RequestLimits
from service.units import parse_duration_ms, parse_size_bytes
from service.variables import service_links, unknown_variables
from telemetry.audit.record import OWN_ISSUERS
from telemetry.settings import SettingsReader

_REQUIRED: Final = "required"
MAX_PORT: Final = 65_535
MAX_LANES: Final = 64
MAX_CONNECTIONS: Final = 1_000_000
NO_LIMIT: Final = "none"
"""The value of a limit that does not apply."""

_SECONDS: Final = {"s": 1, "min": 60}
_MOST_DIGITS: Final = 10

_SHIPPED_TEMPLATES: Final = (Path(__file__).parent / "jobs" / "jobs.toml", Path(__file__).parents[1] / "jobs.toml")


def shipped_templates() -> Path:
    """Return the path of the templates of this version: in the installed package, or at the top of the source tree."""
    packaged, source = _SHIPPED_TEMPLATES
    return packaged if packaged.exists() else source


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings; `docs/configuration.md` describes each."""

    database: str
    needs_standby: bool
    """Whether a PostgreSQL must have a standby that confirms commits."""
    audit_endpoint: str | None
    audit_token_file: Path | None
    archive: Path
    archive_max_bytes: int
    templates: Path
    webhooks: Path | None
    """The file that declares endpoints of webhooks; None: there are none."""
    signing_key: Path
    signing_key_passphrase: Path | None
    ledger_secret: Path
    admin_key: Path
    host: str
    port: int
    connections_per_source: int | None
    """None: half of all connections."""
    trace_url_template: str | None
    lanes: int | None
    """None: as many as are useful for the database."""
    worker_slots: int
    run_lease_ms: int
    run_renew_ms: int
    shutdown_grace_ms: int
    checkpoint_interval_ms: int
    self_check_interval_ms: int
    max_input_bytes: int
    min_free_bytes: int
    limits: RequestLimits
    work_folder: Path | None
    isolation: str
    """`required`, `preferred` or `off`."""
    jwt: JwtSettings | None
    proxies: ProxySettings
    environment: Mapping[str, str]
    """The whole environment: it has the `OTEL_*` variables, and variables that templates pass to runs."""
    problems: Sequence[str] = ()
    """What is wrong with the variables. A wrong variable has its default here; nothing may start with problems."""


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process.

    Args:
        environment: the variables; None for the environment of the process.

    Raises:
        SettingsError: it lists every wrong variable with what it should be.
    """
    settings = examine_settings(environment)
    if settings.problems:
        raise SettingsError(settings.problems)
    return settings


def examine_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings with their problems, for a caller that first checks more."""
    environment = _of_this_process() if environment is None else environment
    links = frozenset(service_links(environment))
    reader = SettingsReader({name: value for name, value in environment.items() if name not in links})
    settings = _settings(reader, environment)
    if settings.run_renew_ms * 2 > settings.run_lease_ms:
        reader.problems.append("AUDITRACE_RUN_RENEW must be at most half of AUDITRACE_RUN_LEASE")
    reader.problems.extend(unknown_variables(reader.environment, reader.known))
    return msgspec.structs.replace(settings, problems=tuple(reader.problems))


def _of_this_process() -> Mapping[str, str]:
    for name in [name for name, value in os.environ.items() if name.startswith("OTEL_") and not value.strip()]:
        # The specification says that an empty variable is unset. The SDK reads it too, and would reject it as a number.
        del os.environ[name]
    return os.environ.copy()


@contextmanager
def without_otel_variables() -> Generator[None]:
    """Hide the `OTEL_*` variables within the block, in which the SDK is imported.

    The SDK reads some of them while it is imported. For a wrong one it ends the process or logs a traceback, before the
    service can report all wrong variables.
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
    reader = SettingsReader({})
    _settings(reader, {})
    return sorted(reader.known)


def _settings(reader: SettingsReader, environment: Mapping[str, str]) -> Settings:
    return Settings(
        database=reader.text("AUDITRACE_DATABASE", "sqlite:///var/auditrace.db"),
        needs_standby=reader.choice("AUDITRACE_POSTGRES_STANDBY", _REQUIRED, (_REQUIRED, "optional")) == _REQUIRED,
        audit_endpoint=reader.get("AUDITRACE_AUDIT_ENDPOINT"),
        audit_token_file=reader.path("AUDITRACE_AUDIT_TOKEN_FILE"),
        archive=Path(reader.text("AUDITRACE_AUDIT_ARCHIVE", "var/archive/audit.jsonl")),
        archive_max_bytes=_size(reader, "AUDITRACE_AUDIT_ARCHIVE_MAX", "100MiB"),
        templates=_templates(reader),
        webhooks=reader.path("AUDITRACE_WEBHOOKS"),
        signing_key=Path(reader.text("AUDITRACE_SIGNING_KEY", "var/keys/signing.pem")),
        signing_key_passphrase=reader.path("AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE"),
        ledger_secret=Path(reader.text("AUDITRACE_LEDGER_SECRET", "var/keys/ledger.secret")),
        admin_key=Path(reader.text("AUDITRACE_ADMIN_KEY", "var/keys/admin.key")),
        host=reader.text("AUDITRACE_HOST", "127.0.0.1"),
        port=reader.number("AUDITRACE_PORT", 8080, 0, MAX_PORT, instead=0),
        connections_per_source=_number_if_given(reader, "AUDITRACE_CONNECTIONS_PER_SOURCE", MAX_CONNECTIONS),
        trace_url_template=reader.parsed("AUDITRACE_TRACE_URL_TEMPLATE", None, _trace_url_template),
        lanes=_number_if_given(reader, "AUDITRACE_LANES", MAX_LANES),
        worker_slots=reader.number("AUDITRACE_WORKER_SLOTS", 2, 1, 256),
        run_lease_ms=_duration_ms(reader, "AUDITRACE_RUN_LEASE", "60s", "1s", "24h"),
        run_renew_ms=_duration_ms(reader, "AUDITRACE_RUN_RENEW", "10s", "100ms", "12h"),
        shutdown_grace_ms=_duration_ms(reader, "AUDITRACE_SHUTDOWN_GRACE", "20s", "0s", "24h"),
        checkpoint_interval_ms=_duration_ms(reader, "AUDITRACE_CHECKPOINT_INTERVAL", "60s", "1s", "24h"),
        self_check_interval_ms=_duration_ms(reader, "AUDITRACE_SELF_CHECK_INTERVAL", "60s", "1s", "24h"),
        max_input_bytes=_size(reader, "AUDITRACE_MAX_INPUT", "8MiB"),
        min_free_bytes=_size(reader, "AUDITRACE_MIN_FREE", "64MiB"),
        limits=RequestLimits(
            credential_requests=_rate(reader, "AUDITRACE_RATE_CREDENTIAL", "1000/s"),
            credential_bytes=_rate(reader, "AUDITRACE_RATE_CREDENTIAL_BYTES", "1GiB/min"),
            source_requests=_rate(reader, "AUDITRACE_RATE_SOURCE", "20/s"),
            unauthenticated_requests=_rate(reader, "AUDITRACE_RATE_UNAUTHENTICATED", "200/s"),
            tenant_jobs=_rate(reader, "AUDITRACE_RATE_TENANT_JOBS", "60000/min"),
            tenant_records=_rate(reader, "AUDITRACE_RATE_TENANT_RECORDS", "120000/min"),
            tenant_bytes=reader.parsed("AUDITRACE_TENANT_BYTES", None, _tenant_bytes),
        ),
        work_folder=reader.path("AUDITRACE_WORK_FOLDER"),
        isolation=reader.choice("AUDITRACE_ISOLATION", "preferred", (_REQUIRED, "preferred", "off")),
        jwt=_jwt(reader),
        proxies=_proxies(reader),
        environment=environment,
    )


def _number_if_given(reader: SettingsReader, name: str, most: int) -> int | None:
    return reader.number(name, 1, 1, most) if reader.get(name) else None


def _size(reader: SettingsReader, name: str, default: str) -> int:
    return reader.parsed(name, parse_size_bytes(default), parse_size_bytes)


def _rate(reader: SettingsReader, name: str, default: str) -> Rate | None:
    unit, parse_amount = default.partition("/")[2], parse_size_bytes if default.endswith("B/min") else _number

    def parse(text: str) -> Rate | None:
        amount, _, stated = text.partition("/")
        if text == NO_LIMIT:
            return None
        if stated != unit:
            raise ValueError(f"{text!r} is not of the form {default}, or {NO_LIMIT}")
        return Rate(_positive(text, parse_amount(amount)), _SECONDS[unit])

    return reader.parsed(name, parse(default), parse)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS):
        raise ValueError(f"{text!r} is not a whole number of at most {_MOST_DIGITS - 1} digits")
    return int(text)


def _positive(text: str, amount: int) -> int:
    if amount == 0:
        raise ValueError(f"{text} lets nothing pass: write {NO_LIMIT} for no limit")
    return amount


def _tenant_bytes(text: str) -> int | None:
    return None if text == NO_LIMIT else _positive(text, parse_size_bytes(text))


def _duration_ms(reader: SettingsReader, name: str, default: str, shortest: str, longest: str) -> int:
    def parse(text: str) -> int:
        milliseconds = parse_duration_ms(text)
        if not parse_duration_ms(shortest) <= milliseconds <= parse_duration_ms(longest):
            raise ValueError(f"{text} is not between {shortest} and {longest}")
        return milliseconds

    return reader.parsed(name, parse_duration_ms(default), parse)


def _templates(reader: SettingsReader) -> Path:
    # A link to a missing file also counts as given. In a folder that cannot be searched there is none.
    default = Path("jobs.toml") if os.path.lexists("jobs.toml") else shipped_templates()
    return reader.path("AUDITRACE_TEMPLATES") or default


def _trace_url_template(text: str) -> str | None:
    if "{trace_id}" not in text:
        raise ValueError("it must hold {trace_id}")
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise ValueError("it must hold no user and password: every client gets this link")
    return text


def _jwt(reader: SettingsReader) -> JwtSettings | None:
    names = ("AUDITRACE_JWT_ISSUER", "AUDITRACE_JWT_AUDIENCE", "AUDITRACE_JWT_JWKS")
    values = [reader.get(name) or "" for name in names]
    # The value is taken from above: a wrong issuer is not a missing one.
    reader.parsed("AUDITRACE_JWT_ISSUER", "", _issuer)
    roles_claim = reader.text("AUDITRACE_JWT_ROLES_CLAIM", "roles")
    tenant_claim = reader.text("AUDITRACE_JWT_TENANT_CLAIM", "tenant")
    person_claim = reader.get("AUDITRACE_JWT_PERSON_CLAIM")
    max_life_ms = _duration_ms(reader, "AUDITRACE_JWT_MAX_LIFE", "24h", "1m", "400d")
    if not any(values):
        return None
    if not all(values):
        missing = ", ".join(name for name, value in zip(names, values, strict=True) if not value)
        reader.add(f"to accept tokens, set {missing} too")
        return None
    issuer, audience, jwks = values
    return JwtSettings(
        issuer=issuer,
        audience=audience,
        jwks=jwks,
        roles_claim=roles_claim,
        tenant_claim=tenant_claim,
        person_claim=person_claim,
        max_life_s=max_life_ms // 1000,
    )


def _proxies(reader: SettingsReader) -> ProxySettings:
    trusted = reader.parsed("AUDITRACE_TRUSTED_PROXIES", trusted_proxies(""), trusted_proxies)
    variables = [f"AUDITRACE_PROXY_{what}_HEADER" for what in ("IDENTITY", "ROLES", "TENANT")]
    names = [reader.parsed(variable, None, header_name) for variable in variables]
    given = [variable for variable in variables if reader.get(variable)]
    needed = ["AUDITRACE_TRUSTED_PROXIES", *variables[:2]]
    missing = ", ".join(variable for variable in needed if not reader.get(variable))
    if given and missing:
        reader.add(f"to let a proxy say who sends a request, set {missing} too")
    if len(set(filter(None, names))) < len(list(filter(None, names))):
        reader.add(f"{', '.join(given)} must name different headers")
    identity, roles, tenant = names
    return ProxySettings(trusted=trusted, identity_header=identity, roles_header=roles, tenant_header=tenant)


def _issuer(text: str) -> str:
    if as_seen(text) in OWN_ISSUERS:
        raise ValueError(f"{text} is what records say of actors that have no token")
    return check_identifier(text)
