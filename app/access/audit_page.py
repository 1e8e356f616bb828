"""`/audit`: requests that changed something or were refused."""

from urllib.parse import urlencode

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.access import audit
from app.access.tables import AuditRow
from app.db.pages import Page, Window
from app.errors import Forbidden, Invalid
from app.web.frame import frame, heading, markup
from app.web.html import ago, badge, empty, link, problem, table
from app.web.page_context import PageContext

SHOWN = 50
_NOTE = "Each request that changed something or was refused. Bodies and keys are never written. Kept for 400 days."
_DONE = ("done", "purged")
"""Outcomes of changes that are no requests; other words are codes of problems."""
_COLUMNS = ["When", "Who", "Action", "Request", "Outcome", "Address", "Request id"]


@ui.page("/audit")
async def audit_page(request: Request, after: str | None = None, key: str | None = None) -> None:
    """The audit log of the workspace.

    Args:
        request: Request of the visitor.
        after: Cursor of the previous page.
        key: Id of a key: only its requests.
    """
    context = PageContext.of(request)
    with frame(request, "Audit log", "/audit"):
        markup(heading("Audit log", note=_NOTE))
        try:
            context.check("admin")
            found = await context.read(
                lambda session: audit.list_entries(session, Window(SHOWN, after or None), key_id=key or None)
            )
        except (Forbidden, Invalid) as error:
            markup(problem(str(error)))
            return
        markup(_shown(found, after, key))


def _shown(found: Page[AuditRow], after: str | None, key: str | None) -> Markup:
    if not found.data:
        nothing = empty("Nothing yet", "The log begins with the first change that a request with a key makes.")
        return Markup('<div class="card flush">{}</div>').format(nothing)
    listed = table(_COLUMNS, map(_row, found.data), "Audit log")
    filtered = {"key": key} if key else {}
    older = (
        link(f"/audit?{urlencode({**filtered, 'after': found.next_cursor})}", "Older", "button")
        if found.has_more
        else ""
    )
    newest = link(f"/audit?{urlencode(filtered)}", "Newest", "button") if after else ""
    return Markup('<div class="card flush">{}</div><div class="actions after">{}{}</div>').format(listed, newest, older)


def _row(row: AuditRow) -> list[object]:
    who = link(f"/audit?key={row.key_id}", row.who or row.key_id) if row.key_id else row.who or "anybody"
    refused = row.outcome >= "400" if row.outcome.isdigit() else row.outcome not in _DONE
    return [
        ago(row.at),
        who,
        row.action,
        Markup("<code>{} {}</code>").format(row.method, row.path) if row.path else "",
        Markup("{} {}").format(badge("refused"), row.outcome) if refused else row.outcome,
        row.address,
        Markup("<code>{}</code>").format(row.request_id) if row.request_id else "",
    ]
