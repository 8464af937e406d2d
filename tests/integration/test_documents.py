"""What the documents tell their readers to type works as it is printed, and shows what they say it shows."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.collector import LISTENERS, NOBODY_GRPC, NOBODY_HTTP, ROOT, require_collector
from tests.support.documented import Typed, blocks_of, commands_of, typed_in
from tests.support.named_commands import DOCUMENTS, fault_of, is_unfinished, name_of
from tests.support.ports import ReservedPorts
from tests.support.postgres import PostgresServer
from tests.support.told import Shell

FIRST = ("The first five minutes",)
WITH_A_COLLECTOR = ("With a Collector",)
ON_MANY_MACHINES = ("On many machines",)
# The steps of a failover are those of a restore, which this machine can do.
RESTORE = ("A SQLite database is moved or restored", "Failover of PostgreSQL")
# What these compare stands still: the service is stopped.
STOPPED = ("AuditStreamRefused", "AuditExporterDropped")

README, API, CONFIGURATION, RUNBOOK, VERIFYING = FOLLOWED = [
    ROOT / name
    for name in ("README.md", "docs/api.md", "docs/configuration.md", "docs/runbook.md", "docs/verifying.md")
]
ELSEWHERE = {
    "docs/audit-format.md": ("tests/integration/test_audit_format_by_hand.py",),
    "docs/correlation.md": ("tests/integration/test_correlation.py", "tests/integration/test_opensearch.py"),
    "docs/webhooks.md": ("tests/integration/test_webhooks.py",),
    "CONTRIBUTING.md": (".ci/run",),
}
"""What other tests follow."""

NAMES = {"auditrace verify", "auditrace serve", "auditrace work", "docker compose config"}
"""What texts say to name a command, and not to type it."""

RUNS_ON = {
    r"make run|auditrace serve": "service",
    r"build/bin/otelcol": "collector",
    r"auditrace work": "worker",
    r"auditrace relay(?! --)": "relay",
}
PORTS = ("4317", "4318", "4327", "4328", "13133", "8888")
SERVE = Typed("make run", "auditrace listens on")
DATABASE = "postgresql://auditrace@db/auditrace"

# An option in a help text, and what it gives as examples of its value.
_EXAMPLES = re.compile(r"(--[a-z-]+) [A-Z]+ (?:(?! --)[^()])*\((-?[0-9][^()]*)\)")
_OPTION = re.compile(r"`(--[a-z][^`…]*)`")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell whose ports are the test's own; the collector's backends are away."""
    reserved = ReservedPorts(1 + len(LISTENERS))
    port, *ports = map(str, reserved.numbers)
    listeners = dict(zip(LISTENERS, ports, strict=True))
    environment = {
        "AUDITRACE_PORT": port,
        # So that nobody waits a minute for the second checkpoint.
        "AUDITRACE_CHECKPOINT_INTERVAL": "1s",
        **{f"{name}_ENDPOINT": f"127.0.0.1:{number}" for name, number in listeners.items()},
        "COLLECTOR_METRICS_HOST": "127.0.0.1",
        "COLLECTOR_METRICS_PORT": listeners["COLLECTOR_METRICS"],
        **dict.fromkeys(("AUDIT_LOGS_ENDPOINT", "LOGS_ENDPOINT", "METRICS_ENDPOINT"), NOBODY_HTTP),
        **dict.fromkeys(("TRACES_ENDPOINT", "JAEGER_ENDPOINT"), NOBODY_GRPC),
    }
    instead = {
        "8080": port,
        **dict(zip(PORTS, ports, strict=True)),
        **dict.fromkeys(("/backup/archive", "/path/to/archive"), "var/archive"),
        "sqlite:////path/to/copy.db": "sqlite:///copy.db",
        "sqlite:////path": "sqlite:///var/auditrace.db",
        "PATH --public-key PEM": "var/archive --public-key public.pem",
        # What a reader fills in is a checkpoint that there is.
        "--behind 41": "--behind 1",
        "checkpoint 41": "checkpoint 1",
    }
    with Shell(tmp_path / "clone", environment, instead) as opened:
        yield opened


def _follow(shell: Shell, commands: Sequence[Typed]) -> None:
    for typed in commands:
        kind = next((kind for form, kind in RUNS_ON.items() if re.search(form, typed.command)), None)
        if kind is None:
            shell.follow(typed)
        else:
            shell.start(typed, kind)


def _told(document: Path, *sections: str) -> list[Typed]:
    """Return what a document, or some of its sections, tells to type; what only names a command is left out."""
    return [
        typed
        for typed in commands_of(document)
        if (not sections or typed.section in sections) and typed.command not in NAMES and not _lacks(typed.command)
    ]


def _lacks(command: str) -> bool:
    """Whether the command line says of a command that something is missing in it."""
    if not command.startswith("auditrace "):
        return False
    _, *arguments = shlex.split(command.partition(" > ")[0].partition(" | ")[0])
    return is_unfinished(fault_of(arguments))


def _begin(shell: Shell) -> None:
    """Do what the README tells for the first five minutes."""
    _follow(shell, _told(README, *FIRST))
    shell.follow(Typed("export PATH=$PWD/.venv/bin:$PATH"))
    shell.follow(Typed('curl -s $API/jobs -H "$AUTH" --json \'{"template": "sha256-files"}\' > receipt.json'))
    stream = shell.follow(Typed("jq -r .audit.stream_id receipt.json")).strip()
    shell.means("STREAM:NUMBER", f"{stream}:1")
    shell.means("--stream ID", f"--stream {stream}")
    shell.means("--receipt FILE", "--receipt receipt.json")


def test_the_readme_leads_a_newcomer_to_a_verified_trail_and_on_to_a_collector(shell: Shell) -> None:
    """The first five minutes, then the collector, in their order, end with a sink that is intact."""
    require_collector()
    _follow(shell, _told(README, *FIRST, *WITH_A_COLLECTOR))


def test_the_readme_leads_on_to_many_machines(shell: Shell, postgres_server: PostgresServer) -> None:
    """A process each for requests, jobs and delivery on one PostgreSQL: a job ends, and its records are delivered."""
    url = postgres_server.create_database()
    shell.means(DATABASE, url)
    _follow(shell, _told(README, *FIRST))
    shell.stop("service")
    _follow(shell, _told(README, *ON_MANY_MACHINES))
    _follow(shell, [typed for typed in _told(README, *FIRST) if typed.command.startswith(("export", "curl", "JOB"))])
    shell.stop_all()
    postgres_server.drop_database(url)


def test_the_examples_of_the_api_work_with_what_is_shipped(shell: Shell) -> None:
    """Each request of docs/api.md is answered as it is printed, in the order of the document."""
    shell.start(SERVE, "service")
    _follow(shell, _told(API))


def test_a_key_of_ones_own_signs_from_the_first_checkpoint_on(shell: Shell) -> None:
    """What docs/configuration.md tells to do before the first start, the start, and then its other commands."""
    own, *others = sorted(_told(CONFIGURATION), key=lambda typed: "openssl" not in typed.command)
    _follow(shell, [own, Typed("openssl pkey -in var/keys/signing.pem -pubout > own.pem"), SERVE])
    shell.follow(Typed(".venv/bin/auditrace keys public | cmp - own.pem"))
    _follow(shell, others)


def test_the_runbook_can_be_followed(shell: Shell) -> None:
    """Each command of the runbook ends as it says, on a service that works and on copies of what it left."""
    _begin(shell)
    shell.follow(Typed("auditrace keys create mallory --role viewer"))
    shell.means("revoke NAME", "revoke mallory")
    told = _told(RUNBOOK)
    _follow(shell, [typed for typed in told if typed.section not in (*STOPPED, *RESTORE)])
    shell.stop_all()
    shell.follow(Typed("cp var/auditrace.db copy.db; auditrace export > export.jsonl"))
    _follow(shell, [typed for typed in told if typed.section in STOPPED])


def test_a_database_that_was_put_back_goes_on_as_the_runbook_says(shell: Shell) -> None:
    """A copy is made while the service runs and put back after more work: the steps end with a ledger that agrees."""
    _begin(shell)
    moved, *steps = [typed for section in RESTORE for typed in _told(RUNBOOK, section)]
    shell.follow(moved)
    shell.follow(Typed('curl -s $API/jobs -H "$AUTH" --json \'{"template": "sha256-files"}\'', '"status":"created"'))
    shell.stop_all()
    shell.follow(Typed("mv copy.db var/auditrace.db"))
    _follow(shell, steps[:-1])
    shell.start(SERVE, "service")
    _follow(shell, steps[-1:])


def test_copies_are_verified_as_the_page_about_it_says(shell: Shell) -> None:
    """Its commands, each of its options, and what the other documents name that none of the tours types."""
    _begin(shell)
    shell.stop_all()
    # Before a replay leaves its record in the database, which the archive gets by the next relay.
    shell.follow(Typed("auditrace export > other.jsonl"))
    _follow(shell, _told(VERIFYING))
    last = shell.follow(Typed("auditrace verify var/archive --public-key public.pem --json | jq -r .last_checkpoint"))
    number, last_hash = re.findall(r'"(?:number|hash)": "?(\w+)', last)
    shell.means("NUMBER:HASH", f"{number}:{last_hash}")
    shell.means("--compare A B", "--compare var/archive other.jsonl")
    options = sorted(set(_OPTION.findall(VERIFYING.read_text(encoding="utf-8"))))
    assert len(options) > 10
    for option in options:
        is_alone = option.startswith("--compare")
        key = "" if is_alone or option == "--without-key" else " --public-key public.pem"
        copy = "" if is_alone else " /backup/archive"
        if not _lacks(f"auditrace verify{copy}{key} {option}"):
            shell.follow(Typed(f"auditrace verify{copy}{key} {option}"))
    for command in ("verify var/archive --public-key public.pem", "export"):
        text = shell.follow(Typed(f"auditrace {command.split()[0]} --help"))
        found = _EXAMPLES.findall(" ".join(text.split()))
        assert found
        for option, examples in found:
            _follow(shell, [Typed(f"auditrace {command} {option} {value}") for value in examples.split(", ")])
    typed = {one.command for document in FOLLOWED for one in commands_of(document)}
    for document in DOCUMENTS:
        in_blocks = {one.command for block in blocks_of(document) for one in typed_in(block)}
        named = {one.command for one in _told(document)} - in_blocks if document not in FOLLOWED else set()
        _follow(shell, [Typed(command) for command in sorted(named - typed)])


def test_every_block_of_commands_is_followed_or_says_that_it_was_not_tried() -> None:
    """What readers may type is typed by a test, or is marked right above: (by hand), (not tried)."""
    followed = {*FIRST, *WITH_A_COLLECTOR, *ON_MANY_MACHINES}
    assert followed <= {block.section for block in blocks_of(README)}
    for document in DOCUMENTS:
        if name_of(document) in ELSEWHERE:
            assert all((ROOT / test).exists() for test in ELSEWHERE[name_of(document)])
            continue
        for block in blocks_of(document):
            is_followed = document in FOLLOWED and (document != README or block.section in followed)
            if block.language in {"console", "sh"} and block.is_tried:
                assert block.language == "console", (
                    f"{name_of(document)}: write `console` and `$ ` before:\n{block.text}"
                )
                assert is_followed, f"{name_of(document)} shows what no test types:\n{block.text}"
