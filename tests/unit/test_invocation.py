"""Who runs a command is what the kernel says, written so that no name can be taken for another one."""

from collections.abc import Mapping

import msgspec
import pytest

from service.bootstrap.command_args import without_secrets
from service.bootstrap.invocation import Process, invocation_of
from telemetry.audit.record import Actor

USERS: Mapping[int, str] = {
    0: "root",
    1000: "anna",
    1001: "CORP\\bob smith",
    1002: "anna@corp",
    1003: "анна",
    1004: "a\udcffb\n",
}
HOST = Process(real_uid=1000, effective_uid=1000, login_uid=None, host="db-1")


def test_the_actor_is_the_real_user_on_the_host_of_the_kernel() -> None:
    """Not the one that variables name; beside it stand the host, the user whose rights count, and the command."""
    environment = {"USER": "eve", "LOGNAME": "eve", "USERNAME": "eve", "HOSTNAME": "elsewhere", "SUDO_UID": "1001"}
    invocation = invocation_of(["auditrace", "keys", "rotate"], environment, HOST, USERS.get)
    assert invocation.actor == Actor("os:anna@db-1", "user", "os")
    assert (invocation.host, invocation.owner, invocation.command) == ("db-1", "anna", ("auditrace", "keys", "rotate"))
    assert (invocation.login_id, invocation.sudo_id) == (None, None)


def test_a_setuid_program_is_run_by_its_caller() -> None:
    """The real user is the person; the owner of the process is the user whose rights it has."""
    invocation = invocation_of([], {}, msgspec.structs.replace(HOST, effective_uid=0), USERS.get)
    assert (invocation.actor.id, invocation.owner) == ("os:anna@db-1", "root")


def test_who_logged_in_is_told_if_it_is_another_user() -> None:
    """From the kernel's login uid; `sudo` adds the user that it names, which a variable says."""
    as_root = msgspec.structs.replace(HOST, real_uid=0, effective_uid=0, login_uid=1000)
    invocation = invocation_of([], {"SUDO_USER": "anna"}, as_root, USERS.get)
    assert (invocation.actor.id, invocation.login_id, invocation.sudo_id) == (
        "os:root@db-1",
        "os:anna@db-1",
        "os:anna@db-1",
    )
    same = invocation_of([], {"SUDO_USER": ""}, msgspec.structs.replace(as_root, login_uid=0), USERS.get)
    assert (same.login_id, same.sudo_id) == (None, None)


@pytest.mark.parametrize(
    ("uid", "host", "expected"),
    [
        (1001, "db-1", "os:CORP\\bob%20smith@db-1"),
        (1002, "db-1", "os:anna%40corp@db-1"),
        (1003, "db-1", "os:%D0%B0%D0%BD%D0%BD%D0%B0@db-1"),
        (1004, "db-1", "os:a%FFb%0A@db-1"),
        (77, "db-1", "os:uid-77@db-1"),
        (1000, "x@db\n1", "os:anna@x%40db%0A1"),
    ],
)
def test_no_name_breaks_a_record_or_reads_like_another(uid: int, host: str, expected: str) -> None:
    """Other characters than letters, digits and a few marks of ASCII are written as bytes; a user may have no name."""
    process = msgspec.structs.replace(HOST, real_uid=uid, effective_uid=uid, host=host)
    invocation = invocation_of([], {"SUDO_USER": "x" * 5000}, process, USERS.get)
    assert invocation.actor.id == expected
    assert expected == f"os:{invocation.owner}@{invocation.host}"
    assert invocation.sudo_id is not None
    assert len(invocation.sudo_id) < 600


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("postgresql://ann:s3cret@db:5432/audit", "postgresql://***@db:5432/audit"),
        ("--to=postgres://ann:s3@cr/et@db/audit", "--to=postgres://***@db/audit"),
        ("postgresql://db/audit?user=ann&p%61ssword=s3cret", "postgresql://db/audit?***"),
        ("postgresql:///audit?host=/run&sslpassword=s3cret", "postgresql:///audit?***"),
        ("host=db password='s3 cret' dbname=audit", "host=db password=***"),
        ("atk_0123abcd_s3cret-_x", "atk_0123abcd_***"),
        ("sqlite:////var/lib/audit@1:2.db", "sqlite:////var/lib/audit@1:2.db"),
        ("postgresql://ann@db/audit", "postgresql://***@db/audit"),
        ("postgres://u:p w@h/db?password=x", "postgres://***@h/db?***"),
        ("caf\udce9\n", "caf\\xe9\n"),
    ],
)
def test_a_command_line_is_recorded_without_secrets(argument: str, expected: str) -> None:
    """Users, passwords and options of database URLs, and secrets of keys, read `***`; everything else stays."""
    assert without_secrets(["auditrace", argument]) == ("auditrace", expected)


def test_a_long_command_line_ends_early() -> None:
    """A record has room for it, however many files a command was given."""
    kept = without_secrets(["auditrace", "verify", *["/archive/part"] * 10_000])
    assert kept[:2] == ("auditrace", "verify")
    assert kept[-1] == "…"
    assert sum(map(len, kept)) <= 8193
