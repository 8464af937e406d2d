"""Finds the time up to which the ledger can be listed, so that no record is missed that a lane commits later.

Lanes commit at the same time, so a record with an earlier time can become visible after one with a later time. A reader
that has listed the later one would never see the earlier one. Therefore every lane transaction announces the time from
which it may seal: it takes a shared advisory lock whose key is that time in microseconds. It takes the lock before it
reads the time of sealing, and holds it until after the commit is visible. No record from before the earliest held key
can still appear, as long as the database's clock does not step back.
"""

import psycopg

from service.store.queries import Execute


def horizon_ns(execute: Execute) -> int:
    """Return the time before which every record is visible to the statements that follow.

    It waits for lanes that were at work at the time of the call, at most a second for each. So every record that was
    committed before the call is before the horizon, unless a lane is stuck.
    """
    ((now_ns,),) = execute("now", {})
    for (key,) in list(execute("announced", {"until": now_ns // 1000})):
        try:
            execute("await_announced", {"key": key})
        except psycopg.errors.LockNotAvailable:
            # The lane is stuck. Records that others commit meanwhile are listed after it has ended.
            return int(key) * 1000
    return int(now_ns)
