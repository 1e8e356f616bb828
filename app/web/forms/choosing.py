"""Fields to choose a model or a dataset; a field loads at most `MOST` options."""

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from app.web.catalogue import ListQuery, datasets, ready_names
from app.web.page_context import PageContext

MOST = 50
"""Maximum options of a field; typing searches all names."""


async def model_choice(
    context: PageContext, label: str, value: str | None = None, change: Callable[..., Any] | None = None
) -> Any:
    """A field to choose a model with a ready version."""

    async def names(search: str) -> dict[str, str]:
        return {name: name for name in await context.read(lambda session: ready_names(session, search, MOST))}

    return await _field(label, value, names, change)


async def dataset_choice(context: PageContext, label: str, value: str | None, change: Callable[..., Any]) -> Any:
    """A field to choose a dataset."""

    async def names(search: str) -> dict[str, str]:
        list_query = ListQuery(search, count=MOST)
        found = await context.read(lambda session: datasets(session, list_query).rows)
        return {row.id: f"{row.name} · {row.rows:,} images · …{row.id[-6:]}" for row in found}

    return await _field(label, value, names, change)


async def _field(label: str, value: str | None, names: Callable[[str], Any], change: Callable[..., Any] | None) -> Any:
    options: Mapping[str, str] = await names("")
    if value is not None and value not in options:
        options = {**options, **{k: v for k, v in (await names(value)).items() if k == value}}
    chosen = value if value in options else None
    field = ui.select(dict(options), label=label, value=chosen, with_input=True, on_change=change)
    field.props(f'outlined dense options-dense aria-label="{label}"').classes("grow")

    async def typed(event: Any) -> None:
        found = await names(str(event.args or ""))
        kept = {field.value: field.options[field.value]} if field.value in field.options else {}
        field.set_options({**found, **kept}, value=field.value)

    if len(options) >= MOST:
        field.on("input-value", typed, throttle=0.3)
    return field
