"""Finds out by a real run which isolation this machine allows; a worker does so once, at its start."""

import os
import shutil
from functools import cache
from pathlib import Path
from typing import Final

from service.errors import SettingsError
from service.execution.isolation import OFF, REQUIRED, Confinement, Isolation
from service.execution.outcome import Reason
from service.execution.spec import DEFAULT_PATH, RunSpec
from service.execution.supervised import SupervisedRun
from service.jobs.model import Limits

_DOCUMENT: Final = 'docs/configuration.md, "Isolation of runs"'
_LIMITS: Final = Limits(memory_bytes=64 * 2**20, cpu_seconds=10, output_bytes=2**20)
_TIMEOUT_MS: Final = 30_000


def decide(setting: str, work_folder: Path | None, hidden: tuple[Path, ...]) -> Confinement:
    """Return the most isolation that the setting asks for and this machine allows; the same for the same arguments.

    Args:
        setting: `required`, `preferred` or `off`.
        work_folder: where the folders of runs are; None is the system's.
        hidden: the files and folders that no run may see.

    Raises:
        SettingsError: `required`, and the sandbox does not work here; the text says why, and what to do.
    """
    if setting == OFF:
        return Confinement()
    found = _found(work_folder if work_folder is None or work_folder.is_dir() else None)
    if setting == REQUIRED and found.missing is not None:
        raise SettingsError([f"AUDITRACE_ISOLATION is required, and {found.missing}"])
    return Confinement(
        isolation=found.isolation,
        is_guarded=found.is_guarded,
        bwrap=found.bwrap,
        has_other_user=found.has_other_user,
        hidden=hidden,
        missing=found.missing,
    )


@cache
def _found(work_folder: Path | None) -> Confinement:
    is_root = os.geteuid() == 0
    bwrap = shutil.which("bwrap", path=DEFAULT_PATH)
    missing = "bubblewrap is not installed: apt-get install bubblewrap"
    if bwrap is not None:
        sandboxed = Confinement(isolation=Isolation.BUBBLEWRAP, is_guarded=True, bwrap=bwrap, has_other_user=is_root)
        failure = _failure(sandboxed, work_folder)
        if failure is None:
            return sandboxed
        missing = (
            f"bubblewrap does not work here ({failure}): allow user namespaces (sysctl "
            "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, "
            f"user.max_user_namespaces); in a container see {_DOCUMENT}"
        )
    guarded = Confinement(is_guarded=True)
    if is_root:
        alone = Confinement(isolation=Isolation.UID, is_guarded=True, has_other_user=True)
        failure = _failure(alone, work_folder)
        if failure is None:
            guarded = alone
        else:
            missing += f"; runs cannot have a user of their own either ({failure})"
    elif _failure(guarded, work_folder) is not None:
        # Without a filter for this machine, runs go on as before.
        guarded = Confinement()
    return Confinement(
        isolation=guarded.isolation,
        is_guarded=guarded.is_guarded,
        has_other_user=guarded.has_other_user,
        missing=missing,
    )


def _failure(confinement: Confinement, work_folder: Path | None) -> str | None:
    """Return why a run could not be executed under this isolation; None if it was."""
    spec = RunSpec(
        job_id="probe",
        run=1,
        template="probe",
        argv=["true"],
        environment={},
        timeout_ms=_TIMEOUT_MS,
        limits=_LIMITS,
        inputs={},
        traceparent="",
        tracestate=None,
        workdir_root=work_folder,
        max_artifact_bytes=2**20,
        owner_descriptor=None,
        confinement=confinement,
    )
    try:
        result = SupervisedRun(spec).wait()
    except OSError as error:
        return str(error)
    return None if result.reason is Reason.SUCCESS else result.detail
