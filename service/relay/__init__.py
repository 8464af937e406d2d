"""Delivers committed records to the sink, tries on through outages, and parks records that the sink refuses alone."""

from service.relay.attempts import RelaySettings
from service.relay.offering import offer, offer_backlog
from service.relay.redelivery import Redelivered, parse_place
from service.relay.relay import Relay
from service.relay.replaying import Replayed, ReplayObserver
from service.relay.stall_timeout import StallTimeout
from service.relay.state import RelayState
from service.relay.stopping import Drained

__all__ = [
    "Drained",
    "Redelivered",
    "Relay",
    "RelaySettings",
    "RelayState",
    "ReplayObserver",
    "Replayed",
    "StallTimeout",
    "offer",
    "offer_backlog",
    "parse_place",
]
