"""Leases by name in a SQLite file: they belong to processes, and file locks tell which processes are alive."""

from service.store.leases import LEASE_NS, is_leased
from service.store.queries import Execute, one
from service.store.sqlite.owners import OwnerLocks


def take_lease(execute: Execute, name: str, locks: OwnerLocks, now_ns: int) -> bool:
    """Take or renew a lease for the owner of the locks; False while another living process has it."""
    row = one(execute("lease", {"name": name}))
    if row is not None:
        owner, until_ns = row
        if owner != locks.owner and is_leased(until_ns, now_ns) and locks.is_alive(owner):
            return False
    execute("put_lease", {"name": name, "owner": locks.owner, "until_ns": now_ns + LEASE_NS})
    return True
