"""`/webhooks/ID`: a webhook, and the messages that were sent to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.db.pages import Window
from app.errors import NotFound, ZooError
from app.web.forms.secret import shown_once
from app.web.frame import button, frame, heading, markup, missing, notify, tell
from app.web.html import ago, badge, chips, empty, facts, identifier, section, title
from app.web.page_context import PageContext
from app.webhooks import outbox
from app.webhooks import service as webhooks
from app.webhooks.list_page import state
from app.webhooks.tables import DeliveryRow, WebhookRow

REFRESH_SECONDS = 2.0
DELIVERIES = 50
"""Messages that are shown, newest first."""


@dataclass(frozen=True)
class View:
    """The data of the page at one moment."""

    webhook: WebhookRow
    deliveries: list[DeliveryRow]


@ui.page("/webhooks/{webhook}")
async def webhook_page(request: Request, webhook: str) -> Response | None:
    """The page of one webhook."""
    context = PageContext.of(request)
    try:
        view = await context.read(lambda session: load_view(session, webhook))
    except NotFound as error:
        return missing(request, error, "/webhooks")
    with frame(request, "Webhook", "/webhooks"):
        await _Live(context, view).build()
    return None


def load_view(session: Session, webhook_id: str) -> View:
    """A webhook with its newest messages.

    Raises:
        NotFound: there is no webhook with this id.
    """
    row = webhooks.get(session, webhook_id)
    return View(row, list(outbox.list_deliveries(session, webhook_id, Window(DELIVERIES)).data))


class _Live:
    """The elements of the page, refreshed while it is open."""

    def __init__(self, context: PageContext, view: View) -> None:
        self._context, self._view = context, view
        self._id = view.webhook.id
        self._shown: object = None

    async def build(self) -> None:
        with ui.element("div").classes("bench"):
            self._head = markup(Markup(""))
            with ui.element("div").classes("actions"):
                button(
                    "Send a test", on_click=self._doing(lambda s: outbox.post_test(s, self._id), "A test is on its way")
                )
                self._switch = button("Disable", on_click=self._toggle)
                button("New secret", on_click=self._rotate)
                button("Delete", on_click=self._delete, kind="danger")
        self._secret = markup(Markup(""))
        with ui.element("div").classes("columns"):
            with ui.element("section").classes("card"):
                hint = "Newest first; kept for 30 days. A message that fails is sent again, later each time."
                markup(title("Deliveries", hint))
                self._rows = ui.element("div")
            self._facts = markup(Markup(""))
        self._draw()
        ui.timer(REFRESH_SECONDS, self.refresh, immediate=False)

    async def refresh(self) -> None:
        """Read the webhook again."""
        try:
            self._view = await self._context.read(lambda session: load_view(session, self._id))
        except NotFound:
            return
        self._draw()

    def _draw(self) -> None:
        row = self._view.webhook
        self._head.set_content(heading(row.url, "Webhook", Markup("{} {}").format(state(row), row.description)))
        self._switch.set_text("Disable" if row.enabled else "Enable")
        about = {
            "Id": identifier(row.id),
            "Events": chips(row.events, 30) if row.events else "all",
            "Failing since": ago(row.failing_since) if row.failing_since else None,
            "Added": ago(row.created_at),
        }
        self._facts.set_content(section("About", facts(about)))
        shown = [(one.id, one.state, one.tries, one.status, one.error) for one in self._view.deliveries]
        if shown == self._shown:
            return
        self._shown = shown
        self._rows.clear()
        with self._rows:
            if not shown:
                markup(empty("No message yet", "“Send a test” sends the first one."))
            for one in self._view.deliveries:
                self._row(one)

    def _row(self, one: DeliveryRow) -> None:
        outcome = one.error or (f"HTTP {one.status}" if one.status else "not tried yet")
        tries = f"{one.tries} {'attempt' if one.tries == 1 else 'attempts'}"
        with ui.element("div").classes("switchrow"):
            markup(
                Markup('<div>{} {}<div class="sub">{}<span>{}</span><span>{}</span>{}</div></div>').format(
                    one.type, badge(one.state), ago(one.created_at), tries, outcome, identifier(one.id)
                )
            )
            again = self._doing(
                lambda session: outbox.redeliver(session, self._id, one.id), "The message is sent again"
            )
            button("Send again", on_click=again)

    def _doing(self, work: Callable[[Session], Any], told: str) -> Callable[[], Any]:
        async def do() -> None:
            try:
                await self._context.write(work, "admin")
            except ZooError as error:
                tell(error)
                return
            notify(told)
            await self.refresh()

        return do

    async def _toggle(self) -> None:
        wanted = not self._view.webhook.enabled
        await self._doing(
            lambda session: webhooks.change(session, self._id, enabled=wanted), "Enabled" if wanted else "Disabled"
        )()

    async def _rotate(self) -> None:
        try:
            secret = await self._context.write(lambda session: webhooks.rotate(session, self._id)[1], "admin")
        except ZooError as error:
            tell(error)
            return
        self._secret.set_content(shown_once(secret, "For 24 hours messages are signed with the old secret, too."))

    async def _delete(self) -> None:
        try:
            await self._context.write(lambda session: webhooks.delete(session, self._id), "admin")
        except ZooError as error:
            tell(error)
            return
        ui.navigate.to("/webhooks")
