"""Checks a whole database for contradictions between jobs, records, delivery and checkpoints."""

from service.store.postgres.reconciliation.checks import reconcile, reconcile_in

__all__ = ["reconcile", "reconcile_in"]
