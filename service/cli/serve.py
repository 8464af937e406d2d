"""`auditrace serve`: API, worker and relay in one process."""

import argparse

import msgspec

from service.cli.output import say_line
from service.config import MAX_PORT, examine_settings
from service.processes.serve import serve


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--host", help="address to listen on (AUDITRACE_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any free port (AUDITRACE_PORT)")
    parser.add_argument("--no-worker", action="store_true", help="run no jobs in this process")
    parser.add_argument("--no-relay", action="store_true", help="deliver no records from this process")
    parser.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    settings = examine_settings()
    given = {"host": arguments.host, "port": arguments.port}
    if arguments.port is not None and not 0 <= arguments.port <= MAX_PORT:
        problem = f"--port {arguments.port} is not a whole number from 0 to {MAX_PORT}"
        given |= {"port": 0, "problems": (*settings.problems, problem)}
    settings = msgspec.structs.replace(settings, **{key: value for key, value in given.items() if value is not None})
    return serve(settings, say_line, with_worker=not arguments.no_worker, with_relay=not arguments.no_relay)
