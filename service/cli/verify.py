"""`auditrace verify`: prove from a copy of the ledger that no record was dropped, edited, reordered or inserted."""

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.bootstrap.clock import now_ns
from service.bootstrap.databases import database_of
from service.cli.arguments import parsed, require_none
from service.cli.copies import copy_of, is_database_url, reading_copies, require_copies, require_paths
from service.cli.output import print_answer
from service.cli.progress import reading_progress
from service.cli.public_keys import NO_KEY, read_public_keys
from service.cli.receipts import read_receipts
from service.cli.verification import record_verification
from service.config import read_settings
from service.errors import SettingsError
from service.times import parse_time_ns
from service.units import parse_duration_ms
from telemetry.audit.verify import (
    Comparison,
    Expected,
    Found,
    KnownCheckpoint,
    ProofReport,
    Report,
    Scope,
    compare,
    proof_in,
    verify_copy,
    verify_proof,
)

_END: Final = ("at_least", "max_age", "receipt", "require_anchored")
_CHECKPOINT: Final = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Verify copies of the ledger; several copies count as one. A copy is a file or folder of OTLP JSON lines, "
        "plain or compressed, a file of bodies line by line, an export of a log backend, or a database. Or verify the "
        "proof of one record that the API returned. Exit status: 0 intact, 1 broken, 2 could not check."
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="default: AUDITRACE_AUDIT_ARCHIVE's folder")
    parser.add_argument(
        "--public-key",
        action="append",
        default=[],
        type=Path,
        metavar="PEM",
        help="file with the output of `auditrace keys public`, from somebody you trust; may be repeated",
    )
    parser.add_argument(
        "--without-key", action="store_true", help="check no signature, only that the copy is consistent"
    )
    parser.add_argument(
        "--database", nargs="?", const="", metavar="URL", help="verify this database (default: AUDITRACE_DATABASE)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    part = parser.add_argument_group("to verify a part of the ledger")
    window = part.add_mutually_exclusive_group()
    window.add_argument(
        "--since", metavar="TIME", help="verify from the checkpoint before TIME on (2026-11-30T08:00:00Z, -2h)"
    )
    window.add_argument("--behind", metavar="NUMBER", help="verify what no checkpoint up to this one covers")
    part.add_argument(
        "--stream", action="append", default=[], metavar="ID", help="verify only this stream; may be repeated"
    )
    end = parser.add_argument_group("to check the end of the ledger against other sources")
    end.add_argument("--at-least", metavar="NUMBER:HASH", help="checkpoint that the copy must contain or go beyond")
    end.add_argument("--max-age", metavar="DURATION", help="greatest age of the last checkpoint (5m)")
    end.add_argument(
        "--receipt",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="saved answers of the API with receipts; the copy must hold their records; may be repeated",
    )
    end.add_argument(
        "--require-anchored", action="store_true", help="the last checkpoint must cover all records of the copy"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="list the records that only one of two copies has; a copy is a path or a database URL",
    )
    parser.set_defaults(command=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    problems: list[str] = []
    since_ns = parsed(_time_ns, arguments.since, "--since", problems)
    behind = parsed(_number, arguments.behind, "--behind", problems)
    scope = Scope(since_ns, frozenset(arguments.stream), behind)
    if arguments.compare is not None:
        refused = ("paths", "public_key", "without_key", "database", "behind", *_END)
        what = "--compare, which verifies neither copy: verify each by itself"
        require_none(problems + _beside(arguments, refused, what))
        answer: Report | Comparison | ProofReport = _compare(arguments.compare, scope)
    else:
        problems += _key_problems(arguments)
        expected = Expected(
            at_least=parsed(_checkpoint, arguments.at_least, "--at-least", problems),
            not_before_ns=parsed(_not_before, arguments.max_age, "--max-age", problems),
            receipts=read_receipts(arguments.receipt),
            all_anchored=arguments.require_anchored,
        )
        others = sorted({one.stream_id for one in expected.receipts} - scope.streams) if scope.streams else []
        problems += [f"--stream leaves out {stream_id}, but a receipt of that stream is given" for stream_id in others]
        require_none(problems)
        answer = _report(arguments, scope, expected)
    print_answer(arguments, answer, [answer.summary()])
    return answer.exit_status


def _key_problems(arguments: argparse.Namespace) -> Sequence[str]:
    if arguments.public_key and arguments.without_key:
        return ["--without-key does not go with --public-key: leave one of them out"]
    return () if arguments.public_key or arguments.without_key else [NO_KEY]


def _report(arguments: argparse.Namespace, scope: Scope, expected: Expected) -> Report | ProofReport:
    require_paths(arguments.paths)
    keys = read_public_keys(arguments.public_key)
    proof_report = _proof_report(arguments, keys)
    if proof_report is not None:
        return proof_report
    settings = read_settings()
    found: Iterable[Found] = ()
    if arguments.database is not None:
        found = database_of(arguments.database or settings.database, as_it_lies=True).records()
    paths: list[Path] = arguments.paths
    if not paths and arguments.database is None:
        paths = [settings.archive.parent]
        require_paths(paths)
    with reading_copies(), reading_progress() as progress:
        require_copies(paths)
        report = verify_copy(paths, found, public_keys=keys, scope=scope, expected=expected, progress=progress)
    unreached = _unreached(report, scope)
    if arguments.database is not None:
        verdict = report.verdict if unreached is None else "not_checked"
        record_verification(arguments, settings, arguments.database or settings.database, scope, report, verdict)
    if unreached is not None:
        raise SettingsError([unreached])
    return report


def _proof_report(arguments: argparse.Namespace, keys: Sequence[Ed25519PublicKey]) -> ProofReport | None:
    """Return the report about the proof that a path names; None when no path names a proof."""
    with reading_copies():
        for path in arguments.paths:
            proof = proof_in(path)
            if proof is not None:
                alone = f"{path} is the proof of one record: verify it by itself, without another PATH"
                what = f"{path}, which is the proof of one record: verify it by itself"
                problems = _beside(arguments, ("database", "since", "behind", "stream", *_END), what)
                require_none(problems + ([alone] if len(arguments.paths) > 1 else []))
                return verify_proof(proof, keys)
    return None


def _unreached(report: Report, scope: Scope) -> str | None:
    """Return what is wrong if there is no finding, but the copy ends before the checkpoint that the window names."""
    last = 0 if report.last_checkpoint is None else report.last_checkpoint.number
    if scope.behind is not None and last < scope.behind and report.verdict != "broken":
        found = f"its last one is {last}" if last else "it has none"
        return f"the copy does not go as far as checkpoint {scope.behind}: {found}"
    return None


def _compare(names: Sequence[str], scope: Scope) -> Comparison:
    require_paths([Path(name) for name in names if not is_database_url(name)])
    one, other = (copy_of(name) for name in names)
    with reading_copies(), reading_progress() as progress:
        require_copies([*one.paths, *other.paths], compared=True)
        return compare(one, other, scope=scope, progress=progress)


def _beside(arguments: argparse.Namespace, options: Sequence[str], what: str) -> list[str]:
    """Return a problem for each of these options that is given together with `what`."""
    given = [option for option in options if getattr(arguments, option) not in (None, False, [])]
    names = ["PATH" if option == "paths" else f"--{option.replace('_', '-')}" for option in given]
    return [f"{name} does not go with {what}" for name in names]


def _checkpoint(text: str) -> KnownCheckpoint:
    form = _CHECKPOINT.fullmatch(text)
    if form is None:
        raise ValueError(
            f"{text!r} is not a checkpoint: write its number, a colon and its hash, as `verify` names them"
        )
    return KnownCheckpoint(int(form[1]), form[2])


def _number(text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not the number of a checkpoint: write one from 1 on, as `verify` names them")
    return int(text)


def _time_ns(text: str) -> int:
    return parse_time_ns(text, now_ns())


def _not_before(text: str) -> int:
    return now_ns() - parse_duration_ms(text) * 1_000_000
