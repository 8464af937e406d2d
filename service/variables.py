"""Finds variables that begin with `AUDITRACE_` and are not settings: misspelled ones, and those of other programs."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

PREFIX: Final = "AUDITRACE_"

_OF_OTHERS: Final = frozenset(
    {
        # The worker sets these for its runs, and a run may be an auditrace command.
        "AUDITRACE_JOB_ID",
        "AUDITRACE_RUN",
        "AUDITRACE_TEMPLATE",
        # The name of the image in deploy/compose.yaml.
        "AUDITRACE_IMAGE",
    }
)
_OF_TESTS: Final = "AUDITRACE_TEST_"
_HOST_OF_SERVICE: Final = re.compile(r"(AUDITRACE(?:_[A-Z0-9_]+)?)_SERVICE_HOST")
_LINK: Final = re.compile(
    r"_SERVICE_HOST|_SERVICE_PORT(?:_[A-Z0-9_]+)?|_PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?"
)


def service_links(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the variables that Kubernetes sets in a pod for Services whose names begin with `auditrace`, sorted.

    Kubernetes sets several variables for each Service, always with its host and port. A single variable does not count
    as one of them, nor does `AUDITRACE_PORT` when it is a number.

    Source: Kubernetes documentation, "Service", "Environment variables".
    """
    hosts = [found[1] for name in environment if (found := _HOST_OF_SERVICE.fullmatch(name)) is not None]
    services = [service for service in hosts if f"{service}_SERVICE_PORT" in environment]
    return sorted({name for service in services for name in environment if _is_link(name, service, environment[name])})


def _is_link(name: str, service: str, value: str) -> bool:
    if not name.startswith(service) or _LINK.fullmatch(name.removeprefix(service)) is None:
        return False
    return "://" in value or name != f"{service}_PORT"


def unknown_variables(environment: Mapping[str, str], settings: Collection[str]) -> Sequence[str]:
    """Return a problem for each variable that looks like a setting and is none; an empty variable is not set.

    Args:
        environment: the variables, without service links.
        settings: the names of all settings.
    """
    names = [name for name, value in sorted(environment.items()) if name.startswith(PREFIX) and value]
    return [
        f"{name}: there is no such setting{_nearest(name, settings)}"
        for name in names
        if name not in settings and name not in _OF_OTHERS and not name.startswith(_OF_TESTS)
    ]


def _nearest(name: str, settings: Collection[str]) -> str:
    # Imported here because most starts do not need it.
    from difflib import get_close_matches

    # Compare without the common prefix, which would make all names similar.
    own = {setting.removeprefix(PREFIX): setting for setting in settings}
    found = get_close_matches(name.removeprefix(PREFIX), own, n=1)
    return f"; did you mean {own[found[0]]}?" if found else ": docs/configuration.md has them all"
