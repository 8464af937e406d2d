"""Delivers committed records to the sink, holds through outages and sets aside what the sink refuses alone."""

from service.relay.attempts import RelaySettings
from service.relay.patience import Patience
from service.relay.redelivery import Redelivered, parse_place
from service.relay.relay import Relay
from service.relay.replaying import Replayed, Watch
from service.relay.state import RelayState
from service.relay.stopping import Drained

__all__ = [
    "Drained",
    "Patience",
    "Redelivered",
    "Relay",
    "RelaySettings",
    "RelayState",
    "Replayed",
    "Watch",
    "parse_place",
]
