"""What a reader hands to the verifier: one copy of one record, from whatever carried it."""

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from telemetry import names

Fields: TypeAlias = Mapping[str, object]
"""Attributes by key, of dict, list, str, int and bool; None stands for any other value and for a key that is twice."""


_FINGERPRINT: Final = re.compile("sha256:[0-9a-f]{64}")


class SourcePlace(msgspec.Struct, frozen=True):
    """Where a copy was found: a file, or any other source, and the line in it, from 1."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


class Index(msgspec.Struct, frozen=True, gc=False):
    """What a log record says beside its body; what it does not say is empty."""

    attributes: Fields
    resource: Fields
    trace_id: str = ""
    span_id: str = ""
    flags: int | None = None
    time_unix_nano: int = 0
    observed_time_unix_nano: int = 0
    event_name: str = ""
    severity_number: int = 0


class Found(msgspec.Struct, frozen=True, gc=False):
    """One copy of a record; `torn` marks the rest of a line that was not written to its end and holds no record.

    `exported_signature` is the signature that a log backend exported beside a body, whose other attributes it renamed
    or retyped.
    """

    body: str | None
    index: Index | None
    place: SourcePlace
    torn: bool = False
    exported_signature: str | None = None

    @property
    def signature(self) -> str | None:
        """The signature that the copy carries; empty when it lost it, None when it has no attributes to carry one."""
        if self.index is None or not self.index.attributes:
            return self.exported_signature
        signature = self.index.attributes.get(names.AUDIT_INTEGRITY_VALUE)
        return signature if isinstance(signature, str) else ""

    @property
    def certificate(self) -> str:
        """The fingerprint of the key that is said to have signed; empty when the copy does not tell."""
        named = "" if self.index is None else self.index.resource.get(names.AUDIT_INTEGRITY_CERTIFICATE)
        return named if isinstance(named, str) and _FINGERPRINT.fullmatch(named) else ""
