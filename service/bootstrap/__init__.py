"""The composition root: the one place that names concrete adapters and reads clock, randomness and process id."""

from service.bootstrap.copying import copied
from service.bootstrap.database import Database, Opened
from service.bootstrap.databases import database_of
from service.bootstrap.node import DEFAULT_TENANT, VERSION, Node, now_ns, open_node
from service.bootstrap.relaying import RelayNode, relay_of

__all__ = [
    "DEFAULT_TENANT",
    "VERSION",
    "Database",
    "Node",
    "Opened",
    "RelayNode",
    "copied",
    "database_of",
    "now_ns",
    "open_node",
    "relay_of",
]
