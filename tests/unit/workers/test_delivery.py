"""What is sent to webhooks is what the specification of Standard Webhooks asks for."""

from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks.outbox import WebhookRequest
from workers import delivery

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def _letter(*secrets: str, sent_at: datetime | None = None) -> WebhookRequest:
    body = '{"test": 2432232314}'
    return WebhookRequest("msg_p5jXN8AQM9LWM0D4loKWxJek", "https://x", body, secrets, sent_at or datetime.now(UTC))


def test_the_vector_of_the_specification() -> None:
    headers = delivery._headers(_letter(SECRET, sent_at=datetime.fromtimestamp(1614265330, UTC)))
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_after_a_rotation_either_secret_verifies() -> None:
    new = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    message = _letter(new, SECRET)
    headers = delivery._headers(message)
    for secret in (new, SECRET):
        assert Webhook(secret).verify(message.body, headers) == {"test": 2432232314}
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(message.body + " ", headers)
