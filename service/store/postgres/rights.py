"""Which rights a role needs on the tables, which ones it has, and how the owner of the tables grants them.

The owner migrates. The service can work with another role, which cannot take back what was committed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, LiteralString, NamedTuple

import msgspec
from psycopg.sql import SQL, Composed, Identifier

from service.errors import SettingsError
from service.store.postgres.connection import Session, translated

TABLES: Final[Mapping[str, tuple[LiteralString, str]]] = {
    "api_key_secrets": ("INSERT", ""),
    "api_key_uses": ("INSERT", "used_ns"),
    "api_keys": ("INSERT", "revoked_ns"),
    "api_keys_on_record": ("", ""),
    "audit_anchors": ("INSERT", "number hash closed checkpoint mac"),
    "audit_checkpoints": ("INSERT", ""),
    "audit_envelopes": ("INSERT", ""),
    "audit_record_keys": ("", ""),
    "audit_records": ("INSERT", ""),
    "audit_streams": ("INSERT", "number hash record_id observed_ns mac closed alive_until_ns"),
    "configuration_offers": ("INSERT", ""),
    "configurations": ("INSERT", ""),
    "delivery_cursors": ("INSERT", "number owner epoch until_ns"),
    "idempotency_keys": ("INSERT DELETE", "body_sha256 job_id expires_ns"),
    "job_artifacts": ("INSERT", ""),
    "job_inputs": ("INSERT", "size sha256 payload"),
    "job_runs": ("INSERT", "status document lease_until_ns"),
    "job_secrets": ("INSERT", ""),
    "job_versions": ("INSERT", ""),
    "jobs": ("INSERT", "status version not_before_ns document"),
    "key_records": ("", ""),
    "leases": ("INSERT DELETE", "owner epoch until_ns"),
    "parked_records": ("INSERT DELETE", "reason"),
    "present_api_keys": ("", ""),
    "refused_streams": ("INSERT DELETE", "reason disowned"),
    "schema_additions": ("", ""),
    "schema_steps": ("", ""),
    "signing_keys": ("INSERT", ""),
    "tenant_storage": ("", ""),
    "tenant_turns": ("INSERT", "last_ns"),
    "webhook_cursors": ("INSERT", "number"),
    "webhook_endpoints": ("INSERT", "error failing_since_ns"),
}
"""By table or view, what the service does beside reading it, and the columns that it updates.

On the partitions of records it has no rights: it reads and inserts through the table. `audit_record_keys` and
`tenant_storage` are filled by trigger functions with the rights of the owner.
"""

FUNCTIONS: Final[tuple[LiteralString, ...]] = (
    "comparable_json(text)",
    "initiator_of(text)",
    "ledger_now_ns()",
    "make_record_partitions(bigint)",
)
_SIGNATURES: Final[Mapping[str, SQL]] = {signature: SQL(signature) for signature in FUNCTIONS}
_MOST_NAMED: Final = 3
NOT_FOR_READERS: Final = frozenset(
    {
        "api_key_secrets",
        "api_keys",
        "api_keys_on_record",
        "idempotency_keys",
        "job_artifacts",
        "job_inputs",
        "job_secrets",
        "present_api_keys",
    }
)


class Right(NamedTuple):
    """One right on a table; UPDATE is by column. On a function, `table` is its signature."""

    table: str
    kind: LiteralString
    column: str = ""


class Rights(msgspec.Struct, frozen=True):
    """The rights of a role on the ledger."""

    role: str
    owner: str
    """The role that owns the tables."""
    schema: str
    may_migrate: bool
    """Whether it has the rights of the owner."""
    powers: Sequence[str]
    """What it may do beyond rights on tables, and the service never needs."""
    held: frozenset[Right]

    @property
    def missing(self) -> Sequence[Right]:
        """What the service needs and the role may not do."""
        return sorted(_OF_SERVICE - self.held)

    @property
    def excess(self) -> Sequence[Right]:
        """What the role may do on tables of the ledger and the service never does."""
        return sorted(self.held - _OF_SERVICE)

    @property
    def may_read_steps(self) -> bool:
        """Whether it may find out which schema the database has."""
        return {Right("schema_steps", "SELECT"), Right("schema_additions", "SELECT")} <= self.held


_OWNER: Final = b"""
SELECT relowner FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = 'schema_steps'
"""
_ROLE: Final = (
    b"WITH owner AS ("
    + _OWNER
    + b""")
SELECT
    rolname::text, pg_get_userbyid(relowner)::text, current_schema()::text, pg_has_role(rolname, relowner, 'USAGE'),
    array_remove(ARRAY[
        CASE WHEN rolsuper THEN 'it is a superuser' END,
        CASE WHEN pg_roles.oid = relowner THEN 'it owns the tables'
            WHEN pg_has_role(rolname, relowner, 'MEMBER') THEN 'it is a member of the role that owns the tables' END,
        CASE WHEN pg_has_role(rolname, datdba, 'MEMBER') THEN 'it has the rights of the owner of the database' END,
        CASE WHEN has_schema_privilege(rolname, current_schema(), 'CREATE') THEN 'CREATE on the schema' END,
        CASE WHEN has_database_privilege(rolname, pg_database.oid, 'CREATE') THEN 'CREATE on the database' END,
        CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN has_parameter_privilege(rolname, 'session_replication_role', 'SET')
            THEN 'it may set session_replication_role, which disables triggers' END,
        CASE WHEN pg_has_role(rolname, 'pg_write_all_data', 'MEMBER') THEN 'it is in pg_write_all_data' END,
        CASE WHEN pg_has_role(rolname, 'pg_write_server_files', 'MEMBER') THEN 'it is in pg_write_server_files' END,
        CASE WHEN pg_has_role(rolname, 'pg_execute_server_program', 'MEMBER')
            THEN 'it is in pg_execute_server_program' END
    ], NULL)
FROM pg_roles CROSS JOIN owner CROSS JOIN pg_database
WHERE datname = current_database() AND rolname = coalesce(%(role)s::name, current_user)
"""
)
_ALL_TABLES: Final = b"""
SELECT oid, relname::text FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v') AND (
    relname = ANY(%(tables)s)
    OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('audit_records'))
)
"""
_HELD: Final = (
    b"WITH tables AS ("
    + _ALL_TABLES
    + b""")
SELECT relname, kind, '' FROM tables
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS kind
WHERE has_table_privilege(%(role)s::name, oid, kind)
UNION ALL
SELECT relname, 'UPDATE', attname::text FROM tables JOIN pg_attribute ON attrelid = tables.oid
WHERE attnum > 0 AND NOT attisdropped AND has_column_privilege(%(role)s::name, tables.oid, attnum, 'UPDATE')
UNION ALL
SELECT signature, 'EXECUTE', '' FROM unnest(%(functions)s::text[]) AS signature
WHERE to_regprocedure(signature) IS NOT NULL AND has_function_privilege(%(role)s::name, signature, 'EXECUTE')
"""
)
_MAY_USE: Final = b"SELECT has_schema_privilege(%(role)s::name, current_schema(), 'USAGE')"


def rights_of(session: Session, role: str | None = None) -> Rights | None:
    """Return the rights of a role, or of the session's role; None if there is no such role, or no ledger yet."""
    with translated():
        for name, owner, schema, may_migrate, powers in session.execute(_ROLE, {"role": role}).fetchall():
            values = {"role": name, "tables": list(TABLES), "functions": list(FUNCTIONS)}
            held = session.execute(_HELD, values).fetchall()
            return Rights(name, owner, schema, may_migrate, powers, frozenset(Right(*one) for one in held))
    return None


def require_rights(rights: Rights) -> None:
    """Raise unless the role may do everything that the service does.

    Raises:
        SettingsError: with the statements that grant what is missing.
    """
    if not rights.missing:
        return
    statements = [f"{one.as_string()};" for one in _grants(rights.schema, rights.role, rights.missing)]
    more = len(statements) - _MOST_NAMED
    named = statements[:_MOST_NAMED] + ([f"and {more} more"] if more > 0 else [])
    lacks = f"the role {rights.role} lacks rights that the service needs, such as {' '.join(named)}"
    to_do = f"run `auditrace migrate --grants {rights.role}` as {rights.owner}, which owns the tables"
    raise SettingsError([f"{lacks} {to_do}"])


def require_grantable(session: Session, role: str) -> None:
    """Raise unless there is such a role, and it is not the owner of the tables.

    Raises:
        SettingsError: with what to do.
    """
    with translated():
        found = session.execute(b"SELECT FROM pg_roles WHERE rolname = %(role)s::name", {"role": role}).fetchall()
    if not found:
        raise SettingsError([f"--grants: there is no role {role}: make it with CREATE ROLE … LOGIN"])
    rights = rights_of(session, role)
    if rights is not None and rights.owner == rights.role:
        raise SettingsError([f"--grants: {role} owns the tables and has all rights: name the role of the service"])


def grant(session: Session, role: str, *, only_reads: bool = False) -> Rights:
    """Give a role the rights of the service on all tables and take all others away, in one transaction.

    Rights that it has as a member of another role, or as everybody has them, stay.

    Args:
        session: of the owner of the tables, which have the newest schema.
        role: one that `require_grantable` accepts.
        only_reads: give it the rights of those who read and verify records, instead of those of the service.

    Returns:
        Rights: what the role may do then.

    Raises:
        LedgerUnavailableError: the session's role does not own the tables.
    """
    needed = _OF_READERS if only_reads else _OF_SERVICE
    before = _rights_there(session, role)
    with translated(), session.transaction():
        for _, name in session.execute(_ALL_TABLES, {"tables": list(TABLES)}).fetchall():
            revoke = SQL("REVOKE ALL ON {} FROM {}")
            session.execute(revoke.format(Identifier(before.schema, name), Identifier(role)))
        ((may_use,),) = session.execute(_MAY_USE, {"role": role}).fetchall()
        if not may_use:
            usage = SQL("GRANT USAGE ON SCHEMA {} TO {}")
            session.execute(usage.format(Identifier(before.schema), Identifier(role)))
        for statement in _grants(before.schema, role, needed):
            session.execute(statement)
    return _rights_there(session, role)


def _rights_there(session: Session, role: str) -> Rights:
    rights = rights_of(session, role)
    if rights is None:
        raise SettingsError([f"--grants: there is no role {role} any more, or no ledger"])
    return rights


def excess_of(rights: Rights) -> str | None:
    """Return what the role may do and the service never does, in a few words; None if there is nothing."""
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    for right in rights.excess:
        kinds[right.kind][right.table] = None
    # Whoever has the rights of the owner has all rights on the tables.
    on_tables = [] if rights.may_migrate else [f"{kind} on {', '.join(tables)}" for kind, tables in kinds.items()]
    return "; ".join([*rights.powers, *on_tables]) or None


def _needed() -> frozenset[Right]:
    found = {Right(signature, "EXECUTE") for signature in FUNCTIONS}
    for table, (kinds, updated) in TABLES.items():
        found |= {Right(table, kind) for kind in ("SELECT", *kinds.split())}
        found |= {Right(table, "UPDATE", column) for column in updated.split()}
    return frozenset(found)


_OF_SERVICE: Final = _needed()
_OF_READERS: Final = frozenset(
    right
    for right in _OF_SERVICE
    if (right.kind == "SELECT" and right.table not in NOT_FOR_READERS)
    or (right.kind == "EXECUTE" and right.table != "make_record_partitions(bigint)")
)


def _grants(schema: str, role: str, rights: Iterable[Right]) -> Sequence[Composed]:
    """Return one statement for each table or function."""
    by_table: dict[str, list[Right]] = defaultdict(list)
    for right in sorted(rights):
        by_table[right.table].append(right)
    to = SQL(" TO {}").format(Identifier(role))
    return [_on(schema, table, group) + to for table, group in by_table.items()]


def _on(schema: str, table: str, rights: Sequence[Right]) -> Composed:
    if table in _SIGNATURES:
        return SQL("GRANT EXECUTE ON FUNCTION {}.").format(Identifier(schema)) + _SIGNATURES[table]
    kinds = [SQL(right.kind) for right in rights if not right.column]
    columns = [Identifier(right.column) for right in rights if right.column]
    updates = [SQL("UPDATE ({})").format(SQL(", ").join(columns))] if columns else []
    return SQL("GRANT {} ON {}").format(SQL(", ").join([*kinds, *updates]), Identifier(schema, table))
