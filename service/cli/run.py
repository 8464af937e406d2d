"""`auditrace serve` and `auditrace work`: the long-running processes that take work."""

import argparse

import msgspec

from service.cli.output import say_line
from service.config import MAX_PORT, examine_settings
from service.processes.alone import work
from service.processes.serve import serve


def add_serve_to(parser: argparse.ArgumentParser) -> None:
    """Add what `serve` takes."""
    parser.add_argument("--host", help="address to listen on (AUDITRACE_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any free one (AUDITRACE_PORT)")
    parser.add_argument("--no-worker", action="store_true", help="run no jobs here")
    parser.add_argument("--no-relay", action="store_true", help="deliver no records here")
    parser.set_defaults(command=_serve)


def add_work_to(parser: argparse.ArgumentParser) -> None:
    """Add what `work` takes."""
    parser.set_defaults(command=_work)


def _serve(arguments: argparse.Namespace) -> int:
    settings = examine_settings()
    given = {"host": arguments.host, "port": arguments.port}
    if arguments.port is not None and not 0 <= arguments.port <= MAX_PORT:
        problem = f"--port {arguments.port} is not a whole number from 0 to {MAX_PORT}"
        given |= {"port": 0, "problems": (*settings.problems, problem)}
    settings = msgspec.structs.replace(settings, **{key: value for key, value in given.items() if value is not None})
    return serve(settings, say_line, with_worker=not arguments.no_worker, with_relay=not arguments.no_relay)


def _work(_: argparse.Namespace) -> int:
    return work(examine_settings(), say_line)
