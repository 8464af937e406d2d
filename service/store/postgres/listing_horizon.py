"""Up to when the ledger can be listed without running ahead of a lane that commits late.

Lanes commit side by side, so a record with an earlier time can become visible after one with a later time. Who has
listed up to the later one would never see the earlier one. Every lane transaction therefore announces since when it may
seal, by a shared advisory lock whose key is that time in microseconds, taken before the time of sealing is read and
held until after the commit is visible. Nothing that is sealed before the earliest key that is held can still appear,
as long as the database's clock does not step back.
"""

import psycopg

from service.store.queries import Execute


def horizon_ns(execute: Execute) -> int:
    """Return the time before which every record is visible to the statements that follow.

    Lanes that were at work when this was called are waited for, a second at most each; so whatever was committed
    before the call lies before the horizon, unless a lane is stuck.
    """
    ((now_ns,),) = execute("now", {})
    for (key,) in list(execute("announced", {"until": now_ns // 1000})):
        try:
            execute("await_announced", {"key": key})
        except psycopg.errors.LockNotAvailable:
            # It is stuck; what others commit meanwhile is listed once it has ended.
            return int(key) * 1000
    return int(now_ns)
