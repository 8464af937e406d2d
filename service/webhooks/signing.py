"""Signs webhooks, so that a receiver knows who sent them, and that they are not changed and not old.

Source: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers".
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

PREFIX: Final = "whsec_"
_LEAST_BYTES: Final = 24
_MOST_BYTES: Final = 64
_MOST_SECRETS: Final = 2


def parse_secrets(text: str) -> Sequence[bytes]:
    """Return the secrets of a file: one a line, one or two; with two, webhooks are signed with both.

    Raises:
        ValueError: it says what is wrong, and shows nothing of a secret.
    """
    lines = text.split()
    if not 1 <= len(lines) <= _MOST_SECRETS:
        raise ValueError(
            f"it must hold one secret, or two while they are exchanged, each on a line; it has {len(lines)}"
        )
    return [_parse(line) for line in lines]


def headers_of(secrets: Sequence[bytes], webhook_id: str, timestamp_s: int, body: bytes) -> Mapping[str, str]:
    """Return the three headers of a webhook.

    Args:
        secrets: each gives one signature.
        webhook_id: the same for every attempt; it has no full stop.
        timestamp_s: the time of the attempt, in seconds since 1970.
        body: as it is sent.
    """
    signed = f"{webhook_id}.{timestamp_s}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _parse(line: str) -> bytes:
    form = f"a secret is {PREFIX} and the base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes"
    if not line.startswith(PREFIX):
        raise ValueError(f"{form}: one does not begin with {PREFIX}")
    try:
        secret = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{form}: one is not base64") from error
    if not _LEAST_BYTES <= len(secret) <= _MOST_BYTES:
        raise ValueError(f"{form}: one has {len(secret)}")
    return secret
