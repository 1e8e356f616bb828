"""`/webhooks`: addresses that receive messages, and a form that adds one."""

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.db.pages import MAX_LIMIT, Window
from app.errors import Invalid, ZooError
from app.web.forms.form import Form
from app.web.forms.secret import shown_once
from app.web.frame import button, card, frame, heading, markup, tell
from app.web.html import ago, badge, chips, empty, link, table
from app.web.page_context import PageContext
from app.webhooks import service as webhooks
from app.webhooks.tables import WebhookRow

_NOTE = "A webhook is an address of yours. The service posts a signed message to it when a job or a deployment changes."


@ui.page("/webhooks")
async def webhooks_page(request: Request) -> None:
    """All webhooks of the workspace."""
    context = PageContext.of(request)
    with frame(request, "Webhooks", "/webhooks"):
        markup(heading("Webhooks", note=_NOTE))
        with ui.element("div").classes("card flush"):
            listed = markup(await context.read(_table))
        with card("Add a webhook"):
            form = Form()
            form.text("url", "Address", "An http or https address that your program listens on.")
            events = ui.select(list(webhooks.EVENTS), label="Events", multiple=True)
            events.props('outlined dense options-dense use-chips bottom-slots aria-label="Events"')
            events.props["hint"] = "Empty: all events, also those of later releases."
            form.text("description", "Description", "Free text, for people.")
            secret = markup(Markup(""))

            async def add() -> None:
                texts, private = form.texts(), context.zoo.settings.webhook_private

                def work(session: Session) -> str:
                    return webhooks.create(
                        session, url=texts["url"].strip(), events=events.value or [],
                        description=texts["description"], private=private,
                    )[1]  # fmt: skip

                try:
                    made = await context.write(work, "admin")
                except Invalid as error:
                    form.complain({"url": str(error)})
                    return
                except ZooError as error:
                    tell(error)
                    return
                form.clear()
                events.set_value([])
                secret.set_content(
                    shown_once(made, "Your program checks the signature of each message with this secret.")
                )
                listed.set_content(await context.read(_table))

            with ui.element("div").classes("actions"):
                button("Add", on_click=add, kind="go")


def state(row: WebhookRow) -> Markup:
    """Whether a webhook receives messages."""
    if not row.enabled:
        return Markup('{}<div class="why">{}</div>').format(badge("off"), row.problem or "")
    return badge("failing") if row.failing_since else badge("on")


def _table(session: Session) -> Markup:
    rows = webhooks.list_webhooks(session, Window(MAX_LIMIT)).data
    if not rows:
        return empty("No webhooks yet", "Add one below; `pnc webhooks create` does the same.")
    cells = (
        [
            link(f"/webhooks/{row.id}", row.url),
            state(row),
            chips(row.events, 4) if row.events else "all",
            row.description,
            ago(row.created_at),
        ]
        for row in rows
    )
    return table(["Address", "State", "Events", "Description", "Added"], cells, "Webhooks")
