"""Delivers committed records to the sink, holds through outages and sets aside what the sink refuses alone."""

from service.relay.redelivery import Redelivered, parse_place
from service.relay.relay import Relay, RelaySettings
from service.relay.state import RelayState

__all__ = ["Redelivered", "Relay", "RelaySettings", "RelayState", "parse_place"]
