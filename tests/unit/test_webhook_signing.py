"""Webhooks are signed as the standard says."""

from base64 import b64encode
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from service.webhooks.signing import headers_of, parse_secrets

KNOWN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'


def secret(length: int) -> str:
    """Return a secret of so many bytes."""
    return f"whsec_{b64encode(b'x' * length).decode()}"


def test_a_known_webhook_has_its_known_signature() -> None:
    """The example of the standard's libraries comes out as they print it."""
    headers = headers_of(parse_secrets(KNOWN), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_make_two_signatures() -> None:
    """While secrets are exchanged, receivers with either one accept the webhook."""
    now_s = 1_767_323_045
    old, new = secret(24), secret(64)
    headers = headers_of(parse_secrets(f"{new}\n{old}\n"), "id", now_s, BODY)
    first, second = headers["webhook-signature"].split(" ")
    for one, signature in ((new, first), (old, second)):
        assert headers_of(parse_secrets(one), "id", now_s, BODY)["webhook-signature"] == signature
        assert Webhook(one).sign("id", datetime.fromtimestamp(now_s, UTC), BODY.decode()) == signature


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has 0"),
        (f"{KNOWN} {KNOWN} {KNOWN}", "it has 3"),
        ("whsek_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begin with whsec_"),
        ("whsec_!!!!", "not base64"),
        (secret(23), "one has 23"),
        (secret(65), "one has 65"),
    ],
)
def test_a_wrong_secret_is_refused_and_not_shown(text: str, why: str) -> None:
    """The message says what is wrong, and holds nothing of the secret."""
    with pytest.raises(ValueError, match=why) as raised:
        parse_secrets(text)
    assert "MfKQ9r8G" not in str(raised.value)
