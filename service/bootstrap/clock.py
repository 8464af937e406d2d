"""Reads the clock of this machine, for commands that open no ledger."""

import time


def now_ns() -> int:
    """Return the time of this machine's clock, nanoseconds since the epoch."""
    return time.time_ns()
