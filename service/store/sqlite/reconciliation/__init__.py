"""Looks through a whole SQLite file for what contradicts itself: jobs, records, delivery and checkpoints."""

from service.store.sqlite.reconciliation.checks import reconcile

__all__ = ["reconcile"]
