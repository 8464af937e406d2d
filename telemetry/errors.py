"""The errors of the telemetry package, grouped by what the receiver can do.

TelemetryError
├── TelemetrySettingsError    fix the settings
├── CanonicalFormError        change the value: it has no canonical form
├── NoTransactionError        call someone: a record was emitted outside a ledger transaction
└── RecordNotSealedError      call someone: a record was emitted and nothing sealed it
"""

from typing import ClassVar


class TelemetryError(Exception):
    """The base of all errors that this package raises on purpose."""

    error_type: ClassVar[str] = "telemetry_error"


class TelemetrySettingsError(TelemetryError):
    """Settings of telemetry or delivery cannot be used; each of `problems` names a setting and says what to do.

    `is_unread` means that some files could not be read, and that no other problem is known.
    """

    error_type = "telemetry_settings"

    def __init__(self, *problems: str, is_unread: bool = False) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.is_unread = is_unread


class CanonicalFormError(TelemetryError):
    """A record body cannot hold a value."""

    error_type = "canonical_form"


class NoTransactionError(TelemetryError):
    """A record was emitted while no ledger transaction was open, so it could not be committed with its change."""

    error_type = "no_transaction"


class RecordNotSealedError(TelemetryError):
    """A record was emitted, and no processor sealed it into the ledger."""

    error_type = "record_not_sealed"
