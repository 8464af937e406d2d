"""What is kept of a copy after its records were taken in, for the steps that check records together."""

from collections.abc import Sequence
from typing import Final

import msgspec

from telemetry.audit.checkpoint import Checkpoint
from telemetry.audit.verify.findings import UnplacedFinding
from telemetry.audit.verify.record.rotation import SeenRotation
from telemetry.audit.verify.spill import SortedRun

NOT_SIGNED: Final = -1
"""Stands for a signature that no given key made."""


class SeenCheckpoint(msgspec.Struct, frozen=True, array_like=True):
    """One copy of a checkpoint record; `signed_by` is the position of the given key that signed it, -1 for none.

    `signature` is as in `Found`, `certificate` the fingerprint of the key that its log record names, or empty. The body
    is kept only while it may have to be compared with a signature.
    """

    stream_id: str
    row: bytes
    time: str
    stated: Checkpoint
    signature: str | None
    signed_by: int
    body: bytes
    certificate: str


class Gathered(msgspec.Struct, frozen=True):
    """What was taken in, as far as the other steps need it; the runs may be on disk."""

    findings: Sequence[UnplacedFinding]
    rows: Sequence[SortedRun]
    ids: Sequence[SortedRun]
    checkpoints: Sequence[SortedRun]
    odd_ids: Sequence[SortedRun]
    odd_streams: dict[bytes, str]
    rotations: Sequence[SeenRotation]
