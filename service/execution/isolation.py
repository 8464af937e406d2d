"""How runs are kept from the service and from each other: the kinds, and what a worker decided at its start; pure."""

from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from service.jobs.model import Plan

REQUIRED: Final = "required"
PREFERRED: Final = "preferred"
OFF: Final = "off"


class Isolation(StrEnum):
    """What keeps a run from the service, as its record states it: a sandbox, another user, or nothing."""

    BUBBLEWRAP = "bubblewrap"
    UID = "uid"
    NONE = "none"


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker decided about its runs at its start; it never changes while the worker lives.

    `bwrap` is the path of bubblewrap; None without a sandbox. `hidden` are the folders of keys, database and archive.
    `missing` says why there is not more isolation, None if there cannot be more.
    """

    isolation: Isolation = Isolation.NONE
    is_guarded: bool = False
    """False with `AUDITRACE_ISOLATION=off`: no filter of system calls, and the supervisor is not protected."""
    bwrap: str | None = None
    has_other_user: bool = False
    """Whether each run has a user of its own; only root can give one."""
    hidden: tuple[Path, ...] = ()
    missing: str | None = None

    def of(self, plan: Plan | None) -> Isolation:
        """Return the isolation of a run of `plan`: a plan with folders of the host keeps the user of the service."""
        if self.isolation is Isolation.UID and plan is not None and (plan.reads or plan.writes):
            return Isolation.NONE
        return self.isolation
