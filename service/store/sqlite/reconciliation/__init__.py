"""Looks through a whole database for what contradicts itself: jobs, records, delivery and checkpoints."""

from service.store.sqlite.reconciliation.checks import reconcile

__all__ = ["reconcile"]
