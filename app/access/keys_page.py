"""`/keys`: the members of a workspace, that is, its keys; make one, and revoke one."""

from datetime import timedelta

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.access import keys
from app.access.keys import SCOPES
from app.access.tables import KeyRow
from app.db.clock import now
from app.db.pages import MAX_LIMIT, Window
from app.errors import Forbidden, Invalid, ZooError
from app.web.forms.form import Form
from app.web.forms.secret import shown_once
from app.web.frame import button, card, frame, heading, markup, notify, tell
from app.web.html import ago, badge, chips, empty, identifier, problem, title
from app.web.page_context import PageContext

_NOTE = "The holder of a key of this workspace is a member of it. A key has scopes, and can be revoked at any time."
_OPEN = "This service does not require keys yet: everybody who reaches it may do everything. Set PNC_REQUIRE_KEYS=true."


@ui.page("/keys")
async def keys_page(request: Request) -> None:
    """The keys of the workspace."""
    context = PageContext.of(request)
    with frame(request, "Keys", "/keys"):
        markup(heading("Keys", note=_NOTE))
        try:
            context.check("admin")
        except Forbidden as error:
            markup(problem(str(error)))
            return
        if not context.zoo.settings.require_keys:
            markup(Markup('<p class="card">{}</p>').format(_OPEN))
        await _Keys(context).build()


class _Keys:
    """The list of keys, and the form that makes one."""

    def __init__(self, context: PageContext) -> None:
        self._context, self._form = context, Form()

    async def build(self) -> None:
        with ui.element("section").classes("card"):
            markup(title("Keys of this workspace"))
            self._rows = ui.element("div")
        with card("Make a key"):
            self._form.text("name", "Name", "For people: the person or the program that uses the key.")
            self._scopes = ui.select(list(SCOPES), label="Scopes", multiple=True, value=["read"])
            self._scopes.props('outlined dense options-dense use-chips bottom-slots aria-label="Scopes"')
            self._scopes.props["hint"] = "read looks, write adds, jobs clones, deploy attaches, admin does everything."
            self._form.text("days", "Days", "The key expires after so many days; empty: never.")
            self._secret = markup(Markup(""))
            with ui.element("div").classes("actions"):
                button("Make the key", on_click=self._make, kind="go")
        await self._draw()

    async def _draw(self) -> None:
        def work(session: Session) -> list[tuple[KeyRow, bool]]:
            moment = now(session)
            rows = keys.list_keys(session, Window(MAX_LIMIT)).data
            return [(row, row.expires_at is not None and row.expires_at <= moment) for row in rows]

        found = await self._context.read(work)
        self._rows.clear()
        with self._rows:
            if not found:
                markup(empty("No keys yet", "Make the first one below, with the scope admin."))
            for row, expired in found:
                self._row(row, expired)

    def _row(self, row: KeyRow, expired: bool) -> None:
        state = "revoked" if row.revoked_at else "expired" if expired else "in force"
        until = f"expires {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else "never expires"
        kind = " (a browser)" if row.parent_id else ""
        with ui.element("div").classes("switchrow"):
            markup(
                Markup('<div><strong>{}</strong>{} {} {}<div class="sub"><span><code>{}…</code></span>'
                       "<span>made {}</span><span>{}</span>{}</div></div>").format(
                    row.name, kind, badge(state), chips(row.scopes), row.hint, ago(row.created_at), until,
                    identifier(row.id),
                )
            )  # fmt: skip
            if state == "in force":
                button("Revoke", on_click=lambda: self._revoke(row.id), kind="danger").props(
                    f'aria-label="Revoke {row.name}"'
                )

    async def _make(self) -> None:
        texts = {name: text.strip() for name, text in self._form.texts().items()}
        if texts["days"] and not (texts["days"].isdigit() and 0 < int(texts["days"]) <= 36500):
            self._form.complain({"days": f"expected a number of days, or nothing, got {texts['days']!r:.40}"})
            return
        lifetime = timedelta(days=int(texts["days"])) if texts["days"] else None
        scopes = list(self._scopes.value or [])

        def work(session: Session) -> str:
            return keys.create(session, name=texts["name"], scopes=scopes, lifetime=lifetime)[1]

        try:
            secret = await self._context.write(work, "admin")
        except Invalid as error:
            pointers = {"/name": "name"}
            placed = {pointers[one.pointer]: one.detail for one in error.problems if one.pointer in pointers}
            self._form.complain(placed)
            if not placed:
                tell(error)
            return
        except ZooError as error:
            tell(error)
            return
        self._form.clear()
        self._secret.set_content(shown_once(secret, f"The key of {texts['name']}."))
        await self._draw()

    async def _revoke(self, key_id: str) -> None:
        try:
            await self._context.write(lambda session: keys.revoke(session, key_id), "admin")
        except ZooError as error:
            tell(error)
            return
        notify("The key is revoked")
        await self._draw()
