"""`auditrace migrate`: bring the database to the newest schema, grant rights, repair a ledger that was restored."""

import argparse

from service.bootstrap.databases import database_of
from service.bootstrap.node import open_node
from service.cli.invocation import invocation_at
from service.cli.output import print_answer
from service.config import read_settings
from service.errors import SettingsError


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = "Bring the database to the newest schema without blocking other processes. Forward only."
    parser.add_argument(
        "--after-restore",
        action="store_true",
        help="the database was restored from a backup, or a standby that lagged took over: close its open streams and "
        "use no number again. Run this once, before you start any process on the database",
    )
    parser.add_argument(
        "--grants",
        metavar="ROLE",
        help="on PostgreSQL: give this role the rights that the service needs, and take its other rights on the tables "
        "away; repeat it with each migration. Run this as the owner of the tables",
    )
    parser.add_argument(
        "--read-only",
        action="store_true",
        help="with --grants: give only the rights to read, verify and export records",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_migrate)


def _migrate(arguments: argparse.Namespace) -> int:
    if arguments.read_only and arguments.grants is None:
        raise SettingsError(["--read-only goes with --grants ROLE: name the role that only reads"])
    settings = read_settings()
    database = database_of(settings.database)
    database.examine()
    if arguments.grants is not None:
        database.require_role(arguments.grants)
    if arguments.after_restore:
        database.require()
    database.prepare()
    applied = database.migrate()
    document: dict[str, object] = {"applied": applied}
    lines = [f"applied {name}" for name in applied] or ["the database is up to date"]
    if arguments.grants is not None:
        more = database.grant(arguments.grants, only_reads=arguments.read_only)
        document["granted"] = {"role": arguments.grants, "may_also": more}
        lines.append(
            f"granted {arguments.grants} what {'readers need' if arguments.read_only else 'the service needs'}"
        )
        lines += [f"remark: {arguments.grants} may also do what the service never does: {more}"] if more else []
    if arguments.after_restore:
        with open_node(settings, "cli", invocation_at(arguments, settings)) as node:
            done = node.checkpoints.restore()
        document["restored"] = {"first_checkpoint": done.numbers[0], "closed": done.closed}
        lines += [
            f"closed {len(done.closed)} streams; checkpoints go on with number {done.numbers[0]}",
            "jobs whose runs were lost run again: check them before you start workers",
        ]
    print_answer(arguments, document, lines)
    return 0
