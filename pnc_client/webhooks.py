"""The resource of webhooks and their deliveries."""

from collections.abc import Iterator, Sequence

from pnc_client.http import Http, path_of
from pnc_client.schemas.webhooks import Delivery, Webhook, WebhookSecret

_PATH = "/v1/webhooks"


class Webhooks:
    """The resource `/v1/webhooks`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, url: str, *, events: Sequence[str] = (), description: str = "") -> WebhookSecret:
        """Create a webhook: the service sends events to an address.

        Args:
            url: Address that receives the messages.
            events: Event types such as `job.succeeded`; empty: all types.
            description: Free text.

        Returns:
            The webhook with its secret; store the secret, because the service does not show it again.

        Raises:
            ApiError: the address is not a public HTTP address.
        """
        body = {"url": url, "events": [*events], "description": description}
        return self._http.post(WebhookSecret, _PATH, body)

    def list(self) -> Iterator[Webhook]:
        """All webhooks, newest first."""
        return self._http.pages(Webhook, _PATH)

    def get(self, webhook_id: str) -> Webhook:
        """One webhook."""
        return self._http.get(Webhook, path_of("webhooks", webhook_id))

    def change(
        self,
        webhook_id: str,
        *,
        enabled: bool | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
    ) -> Webhook:
        """Change a webhook; fields that are None stay unchanged. Enabling a webhook sends its waiting messages."""
        fields = {"enabled": enabled, "events": None if events is None else [*events], "description": description}
        return self._http.patch(Webhook, path_of("webhooks", webhook_id), fields)

    def delete(self, webhook_id: str) -> None:
        """Delete a webhook with its deliveries."""
        self._http.delete(path_of("webhooks", webhook_id))

    def rotate(self, webhook_id: str) -> WebhookSecret:
        """Create a new secret; for one day messages are signed with both secrets."""
        return self._http.post(WebhookSecret, path_of("webhooks", webhook_id, "rotate"))

    def test(self, webhook_id: str) -> Delivery:
        """Send a test message; `deliveries` shows its outcome."""
        return self._http.post(Delivery, path_of("webhooks", webhook_id, "test"))

    def deliveries(self, webhook_id: str, *, state: str | None = None) -> Iterator[Delivery]:
        """The webhook's sent and waiting messages, newest first; with `state` only messages in that state."""
        return self._http.pages(Delivery, path_of("webhooks", webhook_id, "deliveries"), state=state)

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a message again, with the same id and body."""
        return self._http.post(Delivery, path_of("webhooks", webhook_id, "deliveries", delivery_id, "redeliver"))
