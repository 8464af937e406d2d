"""What the role of the service may do in PostgreSQL: what the service needs, and nothing by which records change."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from service.cli.main import main
from service.store.postgres.connection import connect
from service.store.postgres.opening import describe_rights, examine
from service.store.postgres.rights import TABLES, grant, rights_of
from tests.support.postgres import SERVICE, SUPERUSER, PostgresServer, as_service
from tests.support.postgres_stores import PostgresStore
from tests.support.stores import new_job

Session = psycopg.Connection[tuple[Any, ...]]

DENIED: Final = (errors.InsufficientPrivilege, errors.WrongObjectType)
MONTH: Final = "audit_records_2026_01"


@pytest.fixture(scope="module")
def begun(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresStore]:
    """A ledger with a job and records, which the role of the service has made."""
    store = PostgresStore(postgres_server, tmp_path_factory.mktemp("begun"))
    lane = store.lane()
    lane.submit(lambda transaction: transaction.save(store.transition(new_job()))).result()
    lane.close(store.checkpoints(lane).write_last)
    yield store
    store.close()


@pytest.fixture
def attacker(begun: PostgresStore) -> Iterator[Session]:
    """Somebody with the password of the service's role and a client of their own; nothing is kept."""
    with psycopg.connect(begun.service_url) as session:
        yield session
        session.rollback()


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database of the owner, in which the service has its rights."""
    made = postgres_server.create_database()
    yield made
    postgres_server.drop_database(made)


class Commands:
    """Runs commands of the service in one folder."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._patch, self._capsys = patch, capsys
        patch.chdir(folder)
        patch.setenv("AUDITRACE_PORT", "0")

    def on(self, url: str) -> "Commands":
        """Name the database of the next commands."""
        self._patch.setenv("AUDITRACE_DATABASE", url)
        return self

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command, and return its exit status and what it wrote."""
        # A start that is not refused would go on for ever, and is to end as a failed test.
        ending = threading.Timer(60, os.kill, [os.getpid(), signal.SIGTERM])
        ending.start()
        try:
            status, written = main(arguments), self._capsys.readouterr()
            return status, written.out, written.err
        finally:
            ending.cancel()

    def refused(self, *parts: str) -> None:
        """See that a start is refused with these parts in a line, that the doctor says it too, and nothing is made."""
        status, _, error = self.run("serve")
        line = error.splitlines()[0].removeprefix("auditrace: ")
        assert (status, [part for part in parts if part not in line]) == (2, []), error
        _, said, _ = self.run("doctor", "--json")
        rows = {row["check"]: row for row in json.loads(said)["checks"]}
        assert (rows["database"]["status"], line in rows["database"]["detail"]) == ("wrong", True)
        assert list(self.folder.iterdir()) == []


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Commands in a folder of the test's own."""
    return Commands(tmp_path, monkeypatch, capsys)


ATTACKS: Final = {
    "alter a table": "ALTER TABLE audit_records ADD COLUMN more text",
    "drop a table": "DROP TABLE audit_records",
    "drop a month": f"DROP TABLE {MONTH}",
    "detach a month": f"ALTER TABLE audit_records DETACH PARTITION {MONTH}",
    "disable triggers": "ALTER TABLE audit_records DISABLE TRIGGER ALL",
    "disable triggers of a month": f"ALTER TABLE {MONTH} DISABLE TRIGGER ALL",
    "disable triggers of jobs": "ALTER TABLE jobs DISABLE TRIGGER ALL",
    "drop a trigger": "DROP TRIGGER audit_records_are_not_changed ON audit_records",
    "drop a constraint": "ALTER TABLE job_versions DROP CONSTRAINT job_versions_pkey CASCADE",
    "run without triggers": "SET session_replication_role = replica",
    "read the month itself": f"SELECT FROM {MONTH}",
    "insert into the month": f"INSERT INTO {MONTH} SELECT * FROM audit_records",
    "insert a key of a record": "INSERT INTO audit_record_keys SELECT 'other', stream_id, 99, 1 FROM audit_streams",
    "replace a trigger function": "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE sql AS ''",
    "replace a trigger function by search_path": "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE sql AS ''",
    "alter a function": "ALTER FUNCTION register_record() SECURITY INVOKER",
    "make a function in the schema": "CREATE FUNCTION public.other() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "make a table in the schema": "CREATE TABLE public.other (id int)",
    "make a schema": "CREATE SCHEMA other",
    "make a trigger": "CREATE TRIGGER other BEFORE INSERT ON audit_records FOR EACH ROW EXECUTE FUNCTION refuse()",
    "make a trigger that skips a row": "CREATE TRIGGER other BEFORE INSERT ON job_versions FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "make a rule": "CREATE RULE other AS ON INSERT TO audit_records DO INSTEAD NOTHING",
    "make a policy": "CREATE POLICY other ON audit_records USING (false)",
    "make a partition": "CREATE TABLE pg_temp.other PARTITION OF audit_records FOR VALUES FROM (1) TO (2)",
    "inherit from a table": "CREATE TEMP TABLE other () INHERITS (jobs)",
    "make partitions of any month": "SELECT make_partitions_of_any_month(1)",
    "make partitions of a far month": "SELECT make_record_partitions(1)",
    "read a file by COPY": "COPY audit_envelopes (resource, scope) FROM '/etc/hostname'",
    "run a program by COPY": "COPY audit_records TO PROGRAM 'cat'",
    "write a file by COPY": "COPY audit_records TO '/tmp/records'",
    "read a file into a large object": "SELECT lo_import('/etc/hostname')",
    "write a large object to a file": "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/object')",
    "read a file": "SELECT pg_read_file('/etc/hostname')",
    "become the owner": f"SET ROLE {SUPERUSER}",
    "become a writer of all tables": "SET ROLE pg_write_all_data",
    "change the session's user": f"SET SESSION AUTHORIZATION {SUPERUSER}",
    "grant itself a role": f"GRANT {SUPERUSER} TO {SERVICE}",
    "make itself a superuser": f"ALTER ROLE {SERVICE} SUPERUSER",
    "make a role": "CREATE ROLE other SUPERUSER",
    "own a table": f"ALTER TABLE audit_records OWNER TO {SERVICE}",
    "move a table": "ALTER TABLE audit_records SET SCHEMA pg_temp",
    "change a sequence": "SELECT setval('audit_envelopes_envelope_id_seq', 1)",
    "mark steps as applied": "INSERT INTO schema_steps (number, name) VALUES (99, 'later')",
    "set for the database": "ALTER DATABASE postgres SET session_replication_role = replica",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_role_of_the_service_cannot(attack: str, attacker: Session) -> None:
    """Whoever has only its password can change no object, no function, no right and no file."""
    with pytest.raises(DENIED):
        attacker.execute(ATTACKS[attack].encode())


def test_it_can_grant_nothing_to_itself_or_to_others(attacker: Session) -> None:
    """PostgreSQL answers with a warning that no right was granted."""
    attacker.execute(f"GRANT DELETE ON audit_records TO {SERVICE}")
    attacker.execute("GRANT SELECT ON audit_records TO PUBLIC")
    rights = rights_of(attacker)
    assert rights is not None
    assert rights.excess == []
    acl = attacker.execute("SELECT relacl::text FROM pg_class WHERE relname = 'audit_records'").fetchall()
    assert ",=r" not in acl[0][0]


# Only functions of the owner read this view.
OF_OWNER: Final = {"record_partitions"}
# A view of several tables, and TRUNCATE of any view, is refused before rights are looked at.
REFUSED: Final = (errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState, errors.WrongObjectType)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_it_deletes_only_what_is_no_evidence_and_empties_nothing(table: str, attacker: Session) -> None:
    """Expired idempotency keys, leases, and what is parked or refused no more."""
    with pytest.raises(REFUSED):
        attacker.execute(SQL("TRUNCATE {} CASCADE").format(Identifier(table)))
    attacker.rollback()
    if table not in {"idempotency_keys", "leases", "parked_records", "refused_streams"}:
        with pytest.raises(REFUSED):
            attacker.execute(SQL("DELETE FROM {}").format(Identifier(table)))


def test_it_updates_only_the_columns_that_the_service_updates(attacker: Session) -> None:
    """Every other column of every table is sealed with its first value, those of records and versions all."""
    columns = attacker.execute(
        "SELECT relname::text, attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0"
        " AND NOT attisdropped"
    ).fetchall()
    assert {table for table, _ in columns if not table.startswith("audit_records_")} - OF_OWNER == TABLES.keys()
    sealed = [(table, column) for table, column in columns if column not in TABLES.get(table, ("", ""))[1].split()]
    assert ("audit_records", "body") in sealed
    assert ("job_versions", "document_sha256") in sealed
    for table, column in sealed:
        update = SQL("UPDATE {} SET {} = DEFAULT").format(Identifier(table), Identifier(column))
        with pytest.raises(REFUSED):
            attacker.execute(update)
        attacker.rollback()


SHADOWS: Final = (
    "SET search_path = pg_temp, public",
    "CREATE TEMP TABLE job_versions (job_id text, version bigint, status text)",
    "CREATE TEMP TABLE audit_record_keys (record_id text, versioned_job text, target_version bigint)",
    "CREATE TEMP TABLE jobs (job_id text, version bigint, status text)",
    "INSERT INTO pg_temp.job_versions SELECT 'job-1', 1, 'created'",
    "INSERT INTO pg_temp.audit_record_keys VALUES ('forged', 'job-1', 2)",
    "INSERT INTO pg_temp.jobs VALUES ('job-1', 2, 'queued')",
)


def test_temporary_tables_do_not_mislead_the_triggers(attacker: Session) -> None:
    """A version without a record is refused at the commit, whatever tables a session has in front of the ledger's."""
    for statement in SHADOWS:
        attacker.execute(statement.encode())
    attacker.execute(
        "UPDATE public.jobs SET version = 2, status = 'queued', document = jsonb_build_object("
        "'job_id', job_id, 'version', 2, 'status', 'queued')::text WHERE job_id = 'job-1'"
    )
    attacker.execute(
        "INSERT INTO public.job_versions (job_id, version, status, record_id, document_sha256)"
        " VALUES ('job-1', 2, 'queued', 'forged', 'x')"
    )
    with pytest.raises(errors.ForeignKeyViolation, match="has no record that states it"):
        attacker.commit()


def test_a_temporary_trigger_inserts_no_key(attacker: Session) -> None:
    """A trigger refuses keys without records by the depth of triggers; the right is missing at any depth."""
    attacker.execute("CREATE TEMP TABLE way (id int)")
    attacker.execute(
        "CREATE FUNCTION pg_temp.insert_key() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO audit_record_keys VALUES ('other', 'stream', 1, 1); RETURN NEW; END $$"
    )
    attacker.execute("CREATE TRIGGER way BEFORE INSERT ON way FOR EACH ROW EXECUTE FUNCTION pg_temp.insert_key()")
    with pytest.raises(errors.InsufficientPrivilege):
        attacker.execute("INSERT INTO way VALUES (1)")


def test_the_owner_makes_partitions_of_any_month_and_the_service_the_next_ones(url: str) -> None:
    """A copy brings old months, as the owner; the service needs the present one and the two behind it."""
    with psycopg.connect(as_service(url)) as session:
        session.execute("SELECT make_record_partitions(ledger_now_ns())")
    with psycopg.connect(url) as session:
        session.execute("SELECT make_record_partitions(1)")


def test_every_table_of_the_schema_has_its_rights_declared(url: str) -> None:
    """A later migration that makes a table is not complete before it says what the service does with it."""
    with connect(url) as session:
        tables = session.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p', 'v') AND relname !~ '^audit_records_'"
        ).fetchall()
        held = rights_of(session)
        assert {table for (table,) in tables} - OF_OWNER == TABLES.keys()
        assert held is not None
        assert not held.missing


def test_the_rights_are_granted_again_with_the_same_result(url: str) -> None:
    """The command is part of every deployment: what is there stays, what is too much goes, what is new comes."""
    with connect(url) as session:
        before = rights_of(session, SERVICE)
        assert before is not None
        assert (before.missing, before.excess, before.powers) == ([], [], [])
        assert grant(session, SERVICE) == before
        session.execute(f"GRANT DELETE, TRIGGER ON audit_records TO {SERVICE}".encode())
        session.execute(f"REVOKE SELECT ON jobs FROM {SERVICE}".encode())
        changed = rights_of(session, SERVICE)
        assert changed is not None
        assert [right.kind for right in changed.excess] == ["DELETE", "TRIGGER"]
        assert [right.table for right in changed.missing] == ["jobs"]
        assert grant(session, SERVICE) == before


def test_the_doctor_says_what_the_role_may_do_too_much(url: str) -> None:
    """With the owner everything works, and the doctor says how to get better; other rights are named one by one."""
    service = as_service(url)
    assert describe_rights(service) == f"the role {SERVICE} may do what the service needs, and nothing else"
    assert describe_rights(url).startswith(f"remark: the role {SUPERUSER} may do more than the service needs: it is a")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"GRANT DELETE ON audit_records, jobs TO {SERVICE}")
        session.execute(f"GRANT UPDATE (body) ON audit_records TO {SERVICE}")
        session.execute(f"GRANT CREATE ON SCHEMA public TO {SERVICE}")
        session.execute(f"GRANT SET ON PARAMETER session_replication_role TO {SERVICE}")
        session.execute(f"GRANT pg_write_all_data TO {SERVICE}")
        try:
            said = describe_rights(service)
        finally:
            session.execute(f"REVOKE SET ON PARAMETER session_replication_role FROM {SERVICE}")
            session.execute(f"REVOKE pg_write_all_data FROM {SERVICE}")
    for part in ("CREATE on the schema", "session_replication_role", "pg_write_all_data", "DELETE on ", "UPDATE on "):
        assert part in said


def test_a_member_of_the_owner_is_named(url: str) -> None:
    """Such a role can become the owner, whatever rights it has itself."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE ROLE tables_owner")
        session.execute("ALTER TABLE schema_steps OWNER TO tables_owner")
        session.execute(f"GRANT tables_owner TO {SERVICE}")
        try:
            assert "it is a member of the role that owns the tables" in describe_rights(as_service(url))
        finally:
            session.execute(f"ALTER TABLE schema_steps OWNER TO {SUPERUSER}")
            session.execute("DROP ROLE tables_owner")


def test_a_start_that_lacks_a_right_is_refused_with_the_statement_that_helps(url: str, commands: Commands) -> None:
    """Before any key is made or any row is written; also if the role has no right at all."""
    commands.on(as_service(url))
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"REVOKE UPDATE (hash) ON audit_streams FROM {SERVICE}")
        session.execute(f"REVOKE EXECUTE ON FUNCTION make_record_partitions FROM PUBLIC, {SERVICE}")
    commands.refused(
        f'GRANT UPDATE ("hash") ON "public"."audit_streams" TO "{SERVICE}";',
        f'GRANT EXECUTE ON FUNCTION "public".make_record_partitions(bigint) TO "{SERVICE}"; run `auditrace migrate',
    )
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {SERVICE}")
    commands.refused(f"run `auditrace migrate --grants {SERVICE}` as {SUPERUSER}, which owns the tables")
    assert commands.on(url).run("migrate", "--grants", SERVICE)[0] == 0
    assert examine(as_service(url)).startswith("PostgreSQL")


def test_a_service_at_an_old_schema_says_who_migrates(url: str, commands: Commands) -> None:
    """The role of the service cannot migrate, and a start changes nothing."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("DELETE FROM schema_additions WHERE name = '0008_webhooks.addition.sql'")
        session.execute("DROP TABLE webhook_cursors, webhook_endpoints")
    commands.on(as_service(url))
    commands.refused("the schema lacks 1 steps", f"run `auditrace migrate --grants {SERVICE}` as {SUPERUSER}")
    status, said, _ = commands.on(url).run("migrate", "--grants", SERVICE, "--json")
    granted = {"role": SERVICE, "may_also": None}
    assert (status, json.loads(said)) == (0, {"applied": ["0008_webhooks.addition.sql"], "granted": granted})
    assert examine(as_service(url)).startswith("PostgreSQL")


def test_a_role_that_may_make_no_tables_begins_no_ledger(postgres_server: PostgresServer, commands: Commands) -> None:
    """In an empty database the first start would migrate, which is for the owner."""
    url = postgres_server.create_database("template1")
    commands.on(as_service(url)).refused("the database's role may make no tables in the schema public")
    postgres_server.drop_database(url)


def test_grants_that_cannot_be_made_are_refused_before_anything_is_migrated(url: str, commands: Commands) -> None:
    """Another role, the owner itself, a file without roles, or a role that owns nothing."""
    commands.on(url)
    for arguments, part in {
        ("--grants", "nobody"): "there is no role nobody",
        ("--grants", SUPERUSER): f"{SUPERUSER} owns the tables",
        ("--read-only",): "--read-only goes with --grants ROLE",
    }.items():
        status, _, error = commands.run("migrate", *arguments)
        assert (status, part in error) == (2, True), error
    status, _, error = commands.on(as_service(url)).run("migrate", "--grants", SERVICE)
    assert (status, "permission denied" in error) == (2, True), error
    status, _, error = commands.on(f"sqlite:///{commands.folder}/ledger.db").run("migrate", "--grants", SERVICE)
    assert (status, "a SQLite file has no roles" in error) == (2, True), error
    assert list(commands.folder.iterdir()) == []


def test_who_only_reads_can_verify_and_export_and_changes_nothing(begun: PostgresStore, commands: Commands) -> None:
    """An auditor's role reads records, checkpoints and jobs, and neither keys nor secrets nor inputs."""
    with psycopg.connect(begun.url, autocommit=True) as session:
        session.execute("CREATE ROLE auditor LOGIN")
    assert commands.on(begun.url).run("migrate", "--grants", "auditor", "--read-only")[0] == 0
    commands.on(begun.url.replace(f"user={SUPERUSER}", "user=auditor"))
    status, said, _ = commands.run("verify", "--database", "--without-key", "--json")
    assert json.loads(said)["findings"] == []
    assert status == 0
    assert commands.run("export", "--output", str(commands.folder / "records"))[0] == 0
    with psycopg.connect(begun.url.replace(f"user={SUPERUSER}", "user=auditor"), autocommit=True) as session:
        for statement in ("SELECT FROM api_keys", "SELECT FROM job_secrets", "DELETE FROM leases"):
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(statement.encode())
    with psycopg.connect(begun.url, autocommit=True) as session:
        session.execute("DROP OWNED BY auditor")
        session.execute("DROP ROLE auditor")
