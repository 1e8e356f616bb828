"""Webhooks: who is told of changes, and what was sent."""

from collections.abc import Iterator, Sequence

from pnc_client.http import Http, path_of
from pnc_client.schemas.webhooks import Delivery, Webhook, WebhookSecret

_PATH = "/v1/webhooks"


class Webhooks:
    """The resource `/v1/webhooks`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, url: str, *, events: Sequence[str] = (), description: str = "") -> WebhookSecret:
        """Tell an address of changes from now on.

        Args:
            url: Where messages are sent.
            events: Types such as `job.succeeded`; none: all.
            description: Free text.

        Returns:
            The webhook with its secret: keep it, it is not shown again.

        Raises:
            ApiError: the address is not one, or not a public one.
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
        """Change what is given; what waited while it was disabled is sent once it is enabled again."""
        fields = {"enabled": enabled, "events": None if events is None else [*events], "description": description}
        return self._http.patch(Webhook, path_of("webhooks", webhook_id), fields)

    def delete(self, webhook_id: str) -> None:
        """Tell it nothing more, and forget what was sent."""
        self._http.delete(path_of("webhooks", webhook_id))

    def rotate(self, webhook_id: str) -> WebhookSecret:
        """Give it another secret; for a day messages are signed with both."""
        return self._http.post(WebhookSecret, path_of("webhooks", webhook_id, "rotate"))

    def test(self, webhook_id: str) -> Delivery:
        """Send it a message that says nothing but that messages arrive; see `deliveries` for what came of it."""
        return self._http.post(Delivery, path_of("webhooks", webhook_id, "test"))

    def deliveries(self, webhook_id: str, *, state: str | None = None) -> Iterator[Delivery]:
        """What was and will be sent to it, newest first, in one state or all."""
        return self._http.pages(Delivery, path_of("webhooks", webhook_id, "deliveries"), state=state)

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a message once more, with its old id and body."""
        return self._http.post(Delivery, path_of("webhooks", webhook_id, "deliveries", delivery_id, "redeliver"))
