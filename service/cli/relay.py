"""`auditrace relay`: deliver audit records, or send some of them again."""

import argparse
from collections.abc import Callable
from typing import Final

from service.bootstrap.relaying import Redelivery
from service.cli.invocation import invocation_at
from service.cli.output import print_answer, print_error, say_line
from service.cli.replay import refused_record, replay
from service.config import examine_settings
from service.errors import InvalidRequestError
from service.processes.alone import relay, relay_once
from service.relay import Drained, Redelivered, parse_place

_SHOWN_STREAMS: Final = 10


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument(
        "--once",
        action="store_true",
        help="deliver the waiting records, then exit: 1 if the sink took nothing for AUDITRACE_SHUTDOWN_GRACE",
    )
    actions.add_argument(
        "--retry-parked", action="store_true", help="send parked records again, then exit: 1 if some stay parked"
    )
    actions.add_argument(
        "--replay-from",
        metavar="STREAM:NUMBER",
        help="send the delivered records of a stream again from this number on, then exit; the sink gets identical "
        "copies",
    )
    actions.add_argument(
        "--replay-all",
        action="store_true",
        help="send all delivered records to a new sink, then exit: 1 if some were not sent; the next start continues "
        "where this one stopped",
    )
    parser.add_argument("--from-start", action="store_true", help="with --replay-all: start again at the beginning")
    parser.add_argument("--json", action="store_true", help="print JSON; not for a relay that keeps running")
    parser.set_defaults(command=_relay)


def _relay(arguments: argparse.Namespace) -> int:
    if arguments.from_start and not arguments.replay_all:
        raise InvalidRequestError("--from-start belongs to --replay-all")
    ends = arguments.once or arguments.retry_parked or arguments.replay_all or arguments.replay_from is not None
    if arguments.json and not ends:
        raise InvalidRequestError("--json belongs to what ends by itself: --once, --retry-parked, --replay-from …")
    if arguments.replay_all:
        return replay(arguments)
    if arguments.retry_parked:
        return _again(arguments, Redelivery.retry_parked, "auditrace relay --retry-parked")
    if arguments.replay_from is not None:
        stream_id, first = parse_place(arguments.replay_from)
        go_on = f"auditrace relay --replay-from {stream_id}:{{number}}"
        return _again(arguments, lambda node: node.replay(stream_id, first), go_on)
    if arguments.once:
        return _once(arguments)
    return relay(examine_settings(), say_line)


def _once(arguments: argparse.Namespace) -> int:
    done = relay_once(examine_settings())
    parked = f", {done.parked} parked: see `auditrace relay --retry-parked`" if done.parked else ""
    lines = [f"{done.delivered} records were delivered to {done.address}{parked}"]
    if done.reason is None and done.left:
        lines.append(f"another relay holds {_count(done)} more records and delivers them")
    print_answer(arguments, _document(done), lines)
    if done.reason is None:
        return 0
    for line in _unfinished(done, done.reason):
        print_error(line)
    return 1


def _document(done: Drained) -> dict[str, object]:
    return {
        "sink": done.address,
        "delivered": done.delivered,
        "parked": done.parked,
        "left": None if done.left is None else _count(done),
        "streams": [
            {"stream_id": lag.stream_id, "delivered": lag.delivered, "committed": lag.committed}
            for lag in done.left or ()
        ],
        "reason": done.reason,
    }


def _unfinished(done: Drained, reason: str) -> list[str]:
    """Return lines for an operator when not all was delivered: why, where it stopped, how to continue."""
    count = "an unknown number of records is" if done.left is None else f"{_count(done)} records are"
    lines = [f"auditrace: {count} left, after {done.delivered} were delivered to {done.address}: {reason}"]
    left = done.left or ()
    for lag in left[:_SHOWN_STREAMS]:
        held = ", held by another relay" if lag.is_elsewhere else ""
        lines.append(f"  stream {lag.stream_id}: delivered up to {lag.delivered} of {lag.committed}{held}")
    if len(left) > _SHOWN_STREAMS:
        lines.append(f"  and {len(left) - _SHOWN_STREAMS} streams more")
    lines.append("  They stay committed. Run the same command again to go on, or leave `auditrace relay` running.")
    return lines


def _count(done: Drained) -> int:
    return sum(lag.committed - lag.delivered for lag in done.left or ())


def _again(arguments: argparse.Namespace, send: Callable[[Redelivery], Redelivered], go_on: str) -> int:
    settings = examine_settings()
    node = Redelivery(settings, invocation_at(arguments, settings))
    try:
        done = send(node)
        address = node.relay.state().address
    finally:
        node.close()
    document = {
        "accepted": done.accepted,
        "refused": [refused_record(record, answer) for record, answer in done.refused],
        "held": done.held,
        "next_number": done.next_number,
    }
    is_idle = arguments.retry_parked and not (done.accepted or done.refused or done.held)
    lines = ["no record is parked" if is_idle else f"{done.accepted} accepted, {len(done.refused)} refused"]
    lines += [f"  {record.stream_id}:{record.number} {record.record_id}: {answer}" for record, answer in done.refused]
    print_answer(arguments, document, lines)
    if done.held is not None:
        print_error(f"auditrace: stopped at number {done.next_number}, because {address} does not take it: {done.held}")
        print_error(f"  Go on with `{go_on.format(number=done.next_number)}`.")
    return 1 if done.refused or done.held is not None else 0
