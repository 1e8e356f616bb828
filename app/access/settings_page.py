"""`/settings`: limits and storage of the workspace, versions of the software, and the settings of the service."""

import platform

from markupsafe import Markup
from nicegui import ui
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.access import workspaces
from app.access.tables import WorkspaceRow
from app.datasets.tables import DatasetRow
from app.errors import Invalid, ZooError
from app.models.tables import VersionRow
from app.modules.tables import BundleRow, ModuleRow
from app.process.software import versions
from app.settings import Settings
from app.web.drawing import bars
from app.web.frame import button, card, frame, heading, markup, notify, tell
from app.web.html import facts, link, section, size
from app.web.page_context import PageContext

_PACKAGES = ("pnc-zoo", "torch", "torchvision", "timm", "fastapi", "nicegui", "sqlalchemy")
_MOST_DAYS = 3650


@ui.page("/settings")
async def settings_page(request: Request) -> None:
    """The settings of the workspace and of the service."""
    context = PageContext.of(request)
    with frame(request, "Settings", "/settings"):
        note = (
            "The workspace that you see, and the service that it is on. Operators set the service with PNC_ variables."
        )
        markup(heading("Settings", note=note))
        row, stored, jobs = await context.read(_read)
        with ui.element("div").classes("columns even"):
            with ui.element("div").classes("stack"):
                markup(section("Workspace", facts(_workspace(context, row, jobs))))
                await _rules(context, row)
            with ui.element("div").classes("stack"):
                markup(section("Storage", _storage(stored, row.max_bytes), "Bytes of this workspace"))
                markup(section("On and off", facts(_switches(context.zoo.settings))))
                markup(section("Versions", facts(_versions(context))))


def _read(session: Session) -> tuple[WorkspaceRow, dict[str, int], int]:
    bundles = select(func.sum(BundleRow.bytes)).where(BundleRow.module_id.in_(select(ModuleRow.id)))
    sums = {
        "models": select(func.sum(VersionRow.bytes)),
        "datasets": select(func.sum(DatasetRow.bytes)),
        "modules": bundles,
    }
    stored = {name: int(session.scalar(query) or 0) for name, query in sums.items()}
    every = workspaces.stored_bytes(session)
    stored["uploads that nothing uses yet"] = max(0, every - sum(stored.values()))
    return workspaces.own(session), stored, workspaces.live_jobs(session)


def _workspace(context: PageContext, row: WorkspaceRow, jobs: int) -> dict[str, object]:
    caller = context.caller
    return {
        "Name": row.name,
        "Your key": Markup("{} ({})").format(caller.name, link("/sign-out", "sign out"))
        if caller.key_id
        else "none is required",
        "You may": ", ".join(sorted(caller.scopes)),
        "Members": link("/keys", "the keys of this workspace"),
        "Jobs that have not ended": f"{jobs} of {row.max_jobs}" if row.max_jobs is not None else f"{jobs}, no limit",
        "Requests a minute": "no limit"
        if row.requests_per_minute is None
        else f"{row.requests_per_minute} for each key",
        "Other workspaces": Markup("the operator lists and makes them with <code>pnc workspaces</code>"),
    }


async def _rules(context: PageContext, row: WorkspaceRow) -> None:
    """Fields of the two rules that a workspace may change."""
    with card("Rules"):
        signed = ui.switch("Deployments accept only signed modules", value=row.require_signature)
        markup(Markup('<p class="hint plain">{}</p>').format("A module counts if a trusted key has signed it."))
        days = ui.number("Days until archived records are purged", value=row.retention_days, min=1, max=_MOST_DAYS)
        days.props('outlined dense clearable bottom-slots aria-label="Days until archived records are purged"')
        days.props["hint"] = "Empty: they are purged only on request."

        async def save() -> None:
            wanted = None if days.value is None else int(days.value)
            if wanted is not None and not 1 <= wanted <= _MOST_DAYS:
                days.error = f"expected 1 to {_MOST_DAYS} days, or nothing, got {wanted}"
                return
            days.error = None

            def work(session: Session) -> None:
                own = workspaces.own(session)
                own.require_signature, own.retention_days = bool(signed.value), wanted

            try:
                await context.write(work, "admin")
            except (ZooError, Invalid) as error:
                tell(error)
                return
            notify("Saved")

        with ui.element("div").classes("actions"):
            button("Save", on_click=save, kind="go")


def _storage(stored: dict[str, int], limit: int | None) -> Markup:
    every = max(1, sum(stored.values()), limit or 0)
    rows = [(name, count / every, size(count)) for name, count in stored.items()]
    total = size(sum(stored.values()))
    told = f"{total} of {size(limit)} are used." if limit is not None else f"{total} are used; there is no limit."
    return Markup('{}<p class="hint plain">{}</p>').format(bars(rows, "Bytes"), told)


def _switches(settings: Settings) -> dict[str, object]:
    hosts = ", ".join(settings.import_hosts) or "none"
    return {
        "Keys are required": _on(settings.require_keys),
        "Imports may come from": hosts,
        "Webhooks to private addresses": _on(settings.webhook_private),
        "Exact answers (deterministic serving)": _on(settings.deterministic),
        "Device of the serving process": settings.device,
        "Largest file": size(settings.max_upload_bytes),
        "Largest image": size(settings.max_image_bytes),
    }


def _versions(context: PageContext) -> dict[str, object]:
    database = "SQLite" if context.zoo.database.is_sqlite else "PostgreSQL"
    store = context.zoo.settings.store_url.partition(":")[0]
    return {
        **versions(_PACKAGES),
        "Python": platform.python_version(),
        "Database": database,
        "Object store": {"s3": "S3", "file": "a directory"}.get(store, store),
    }


def _on(value: bool) -> str:
    return "on" if value else "off"
