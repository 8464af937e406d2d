"""Checks a whole SQLite file for contradictions between jobs, records, delivery and checkpoints."""

from service.store.sqlite.reconciliation.checks import reconcile

__all__ = ["reconcile"]
