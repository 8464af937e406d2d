"""The verification of the own ledger, on schedule."""

from service.selfcheck.checking import SelfCheck, SelfCheckState

__all__ = ["SelfCheck", "SelfCheckState"]
