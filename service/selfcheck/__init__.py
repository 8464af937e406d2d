"""The verification that a service makes of its own ledger, on schedule."""

from service.selfcheck.checking import SelfCheck, SelfCheckState

__all__ = ["SelfCheck", "SelfCheckState"]
