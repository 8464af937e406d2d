"""The verification of the own ledger and of its API keys, on schedule."""

from service.selfcheck.checking import SelfCheck, SelfCheckState
from service.selfcheck.keys import KeyCheck

__all__ = ["KeyCheck", "SelfCheck", "SelfCheckState"]
