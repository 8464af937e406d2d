"""Copies a ledger from a file into an empty PostgreSQL: all of it, with all checks on both sides, or nothing."""

from service.store.copying.copying import Copied, CopyStep, copy_ledger

__all__ = ["Copied", "CopyStep", "copy_ledger"]
