"""Delivers committed records to the endpoints that operators declare: signed, in order per stream, at least once."""

from service.webhooks.endpoints import WebhookEndpoint, endpoints_of
from service.webhooks.webhooks import Webhooks

__all__ = ["WebhookEndpoint", "Webhooks", "endpoints_of"]
