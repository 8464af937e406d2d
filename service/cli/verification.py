"""Records that a person verified a database of the service, before the verdict is printed."""

import argparse
from typing import Final
from urllib.parse import urlencode

from service.bootstrap.databases import database_of
from service.cli.invocation import invocation_at
from service.cli.output import print_error
from service.config import Settings, without_otel_variables
from service.errors import AuditraceError
from service.records import Fact, change
from telemetry import names
from telemetry.audit.chain import rfc3339_nanos
from telemetry.audit.record import Result, Target
from telemetry.audit.verify import Report, Scope
from telemetry.errors import TelemetryError
from telemetry.urls import shown

_AT_REST: Final = "no process of the service works on this database, so it is read as it lies"


def record_verification(
    arguments: argparse.Namespace, settings: Settings, url: str, scope: Scope, report: Report, verdict: str
) -> None:
    """Commit the record of a verification of the database at `url`, or say on standard error why it is not recorded.

    It is recorded while a process of the service works on the database. Otherwise the database may be a backup or
    other evidence, in which nothing may be changed.
    """
    try:
        why = _not_recorded(arguments, settings, url, _fact(arguments, scope, report, verdict))
    except (AuditraceError, TelemetryError) as error:
        why = " ".join(str(error).split())
    except OSError as error:
        why = f"{error.filename or shown(url)} cannot be used: {error.strerror or error}"
    if why is not None:
        print_error(f"auditrace: this verification is not recorded: {why}")


def _not_recorded(arguments: argparse.Namespace, settings: Settings, url: str, fact: Fact) -> str | None:
    """Commit the record and return None, or return why nothing was tried."""
    if not database_of(url, as_it_lies=True).is_at_work():
        return _AT_REST
    # Imported here, because loading it takes as long as a short verification.
    with without_otel_variables():
        from service.bootstrap.recording import recorder
    with recorder(settings, database_of(url), invocation_at(arguments, settings)) as opened:
        opened.record(fact)
    return None


def _fact(arguments: argparse.Namespace, scope: Scope, report: Report, verdict: str) -> Fact:
    changes = {
        "filter": change(None, _filter(arguments, scope)),
        "verdict": change(None, verdict),
        "findings": change(None, len(report.findings)),
    }
    target = Target("ledger", "auditrace")
    return Fact(event_name=names.EVENT_AUDIT_VERIFY, target=target, result=Result.SUCCESS, changes=changes)


def _filter(arguments: argparse.Namespace, scope: Scope) -> str:
    """Return what was asked for as a query text; files are counted, because the command line names them."""
    asked = {
        "since": None if scope.since_ns is None else rfc3339_nanos(scope.since_ns),
        "behind": scope.behind,
        "stream": sorted(scope.streams),
        "keys": len(arguments.public_key),
        "at_least": arguments.at_least,
        "max_age": arguments.max_age,
        "receipts": len(arguments.receipt) or None,
        "require_anchored": "true" if arguments.require_anchored else None,
        "paths": len(arguments.paths) or None,
    }
    return urlencode(sorted((name, value) for name, value in asked.items() if value is not None), doseq=True)
