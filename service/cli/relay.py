"""`auditrace relay`: deliver audit records, or send some of them again."""

import argparse
import sys
from collections.abc import Callable
from typing import Final

from service.bootstrap.relaying import RelayNode
from service.cli.output import print_error, print_json, print_line, say_line
from service.cli.replay import replay
from service.config import examine_settings
from service.errors import InvalidRequestError
from service.processes.alone import relay, relay_once
from service.relay import Drained, Redelivered, Relay, parse_place

_SHOWN_STREAMS: Final = 10


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument(
        "--once",
        action="store_true",
        help="deliver what is there, then exit: 1 if the sink took nothing for AUDITRACE_SHUTDOWN_GRACE",
    )
    actions.add_argument(
        "--retry-parked", action="store_true", help="send parked records again, then exit: 1 if some stay parked"
    )
    actions.add_argument(
        "--replay-from",
        metavar="STREAM:NUMBER",
        help="send what was delivered of a stream again from there, then exit; the sink gets identical copies",
    )
    actions.add_argument(
        "--replay-all",
        action="store_true",
        help="send everything that was delivered before to a sink that is new, then exit: 1 if it could not send all; "
        "started again, it goes on where it stopped",
    )
    parser.add_argument("--from-start", action="store_true", help="with --replay-all: do not go on, begin anew")
    parser.add_argument("--json", action="store_true", help="print JSON about what was sent, where it ends by itself")
    parser.set_defaults(command=_relay)


def _relay(arguments: argparse.Namespace) -> int:
    if arguments.from_start and not arguments.replay_all:
        raise InvalidRequestError("--from-start belongs to --replay-all")
    ends = arguments.once or arguments.retry_parked or arguments.replay_all or arguments.replay_from is not None
    if arguments.json and not ends:
        raise InvalidRequestError("--json belongs to what ends by itself: --once, --retry-parked, --replay-from …")
    if arguments.replay_all:
        return replay(from_start=arguments.from_start, as_json=arguments.json)
    if arguments.retry_parked:
        return _again(Relay.retry_parked, "auditrace relay --retry-parked", as_json=arguments.json)
    if arguments.replay_from is not None:
        stream_id, first = parse_place(arguments.replay_from)
        go_on = f"auditrace relay --replay-from {stream_id}:{{number}}"
        return _again(lambda opened: opened.replay(stream_id, first), go_on, as_json=arguments.json)
    if arguments.once:
        return _once(as_json=arguments.json)
    return relay(examine_settings(), say_line)


def _once(*, as_json: bool) -> int:
    done = relay_once(examine_settings())
    if as_json:
        print_json(_document(done))
    else:
        parked = f", {done.parked} parked: see `auditrace relay --retry-parked`" if done.parked else ""
        print_line(f"{done.delivered} records were delivered to {done.address}{parked}")
        if done.reason is None and done.left:
            print_line(f"{_count(done)} more are left to another relay, which holds them and delivers them")
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
    """Return what an operator needs who finds that not all was delivered: why, where it stopped, how to go on."""
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


def _again(send: Callable[[Relay], Redelivered], go_on: str, *, as_json: bool) -> int:
    node = RelayNode(examine_settings(), is_daemon=False)
    try:
        done = send(node.relay)
        address = node.relay.state().address
    finally:
        node.close()
    if as_json:
        print_json(
            {
                "accepted": done.accepted,
                "refused": [
                    {
                        "stream_id": record.stream_id,
                        "number": record.number,
                        "record_id": record.record_id,
                        "answer": answer,
                    }
                    for record, answer in done.refused
                ],
                "held": done.held,
                "next_number": done.next_number,
            }
        )
    else:
        print_line(f"{done.accepted} accepted, {len(done.refused)} refused")
        for record, answer in done.refused:
            print_line(f"  {record.stream_id}:{record.number} {record.record_id}: {answer}")
    if done.held is not None:
        sys.stderr.write(
            f"auditrace: stopped at number {done.next_number}, because {address} does not take it: {done.held}\n"
            f"  Go on with `{go_on.format(number=done.next_number)}`.\n"
        )
    return 1 if done.refused or done.held is not None else 0
