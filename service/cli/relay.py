"""`auditrace relay`: deliver audit records, or send some of them again."""

import argparse
from collections.abc import Callable

from service.bootstrap.relaying import RelayNode
from service.cli.output import print_json, print_line
from service.config import read_settings
from service.processes.alone import relay
from service.relay import Redelivered, Relay, parse_place


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--once", action="store_true", help="deliver what is there, then exit: 1 if some is left")
    actions.add_argument(
        "--retry-parked", action="store_true", help="send parked records again, then exit: 1 if some stay parked"
    )
    actions.add_argument(
        "--replay-from",
        metavar="STREAM:NUMBER",
        help="send what was delivered of a stream again from there, then exit; the sink gets identical copies",
    )
    parser.add_argument("--json", action="store_true", help="print JSON about what was sent again")
    parser.set_defaults(command=_relay)


def _relay(arguments: argparse.Namespace) -> int:
    if arguments.retry_parked:
        return _again(Relay.retry_parked, as_json=arguments.json)
    if arguments.replay_from is not None:
        stream_id, first = parse_place(arguments.replay_from)
        return _again(lambda opened: opened.replay(stream_id, first), as_json=arguments.json)
    return relay(read_settings(), once=arguments.once)


def _again(send: Callable[[Relay], Redelivered], *, as_json: bool) -> int:
    node = RelayNode(read_settings(), is_daemon=False)
    try:
        done = send(node.relay)
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
            print_line(f"stopped at number {done.next_number}: {done.held}")
    return 1 if done.refused or done.held is not None else 0
