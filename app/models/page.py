"""`/models/NAME`: versions, what the newest is made of, and what was cloned from it and into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.db.pages import Window
from app.errors import NotFound
from app.lifecycle.panel import ArchivePanel
from app.models import layer_table
from app.models import service as models
from app.models.alias_panel import AliasPanel
from app.models.card import first_line
from app.models.card_page import Card
from app.models.tables import ModelRow, VersionRow
from app.modules.list_page import COLUMNS, row
from app.modules.tables import ModuleRow
from app.web import catalogue
from app.web.class_list import SHOWN, ClassList
from app.web.drawing import bars
from app.web.frame import frame, heading, markup, missing
from app.web.html import (
    COMPLAINTS,
    ago,
    aliases_of,
    badge,
    chips,
    command,
    count,
    empty,
    facts,
    link,
    more,
    percent,
    problem,
    section,
    short,
    size,
    table,
    version_badge,
)
from app.web.lineage import drawn, graph_of
from app.web.page_context import PageContext
from app.zoo import Zoo
from pnc_core.errors import TensorFileError
from pnc_core.preprocessing import Preprocessing

REFRESH_SECONDS = 2.0
LAYERS, VERSIONS, FAMILY = 40, 20, 50
IN_GRAPH = 8
"""Modules in the picture of the lineage."""
"""Layers, versions and modules that are shown at most."""


@dataclass(frozen=True)
class View:
    """A model's page as it is at one moment."""

    model: ModelRow
    head: Markup
    layers: Markup
    side: Markup
    """The newest version, and all of them."""
    family: Markup
    """What was cloned into it and from it."""
    has_versions: bool
    """Whether the page has a newest version, whose classes it lists."""
    is_settled: bool
    """Nothing in it will change by itself."""


@ui.page("/models/{name}")
async def model_page(request: Request, name: str) -> Response | None:
    """One model."""
    context = PageContext.of(request)
    try:
        view = await context.read(lambda session: load_view(session, context.zoo, name))
    except NotFound as error:
        return missing(request, error, "/")

    def find(session: Session) -> ModelRow:
        return models.get(session, name, purged=True)

    def set_archived(session: Session, archived: bool) -> ModelRow:
        return models.change(session, name, archived=archived)

    with frame(request, view.model.name, "/"):
        head = markup(view.head)
        with ui.element("div").classes("columns"):
            with ui.element("div").classes("stack"):
                layers = markup(view.layers)
                if view.has_versions:
                    await ClassList(context, lambda session: newest_version(session, name)).build()
                await Card(context, name).build(view.model.description)
            with ui.element("div").classes("stack"):
                side = markup(view.side).classes("stack")
                if view.has_versions:
                    await AliasPanel(context, name).build()
        family = markup(view.family).classes("stack")
        ArchivePanel(context, find, set_archived, "/").build(view.model.archived_at is not None)

        async def refresh() -> None:
            newer = await context.read(lambda session: load_view(session, context.zoo, name))
            for place, content in (
                (head, newer.head),
                (layers, newer.layers),
                (side, newer.side),
                (family, newer.family),
            ):
                place.set_content(content)
            if newer.is_settled:
                timer.deactivate()

        timer = ui.timer(REFRESH_SECONDS, refresh, active=not view.is_settled, immediate=False)
    return None


def load_view(session: Session, zoo: Zoo, name: str) -> View:
    """A model with its versions and its lineage.

    Raises:
        NotFound: there is none with this name.
    """
    model = models.get(session, name)
    newest_first = models.list_versions(session, name, Window(VERSIONS), archived=True)
    versions = newest_first.data
    rest = models.count_versions(session, model) - VERSIONS if newest_first.has_more else 0
    family = catalogue.lineage(session, model, FAMILY + 1)
    newest = _newest(versions)
    settled = all(version.status != "validating" and version.checking is None for version in versions)
    if newest is None:
        advice = Markup('Drop its weights on <a href="/add">Add a model</a>, or use <code>pnc models push {}</code>.')
        nothing = section("Layers", empty("No versions yet", advice.format(model.name)))
        return View(model, _head(model, None), nothing, Markup(""), Markup(""), False, settled)
    made_of = section("Layers", _layers(zoo, newest), "Channels that each layer makes, and its share of all numbers")
    side = _facts(model, newest) + _versions(model, versions, rest)
    family_parts = _graph(session, model, family) + _lineage(model, family)
    return View(model, _head(model, newest), made_of, side, family_parts, True, settled)


def newest_version(session: Session, name: str) -> VersionRow:
    """The version that a model's page describes.

    Raises:
        NotFound: there is no such model, or it has no version.
    """
    newest = _newest(models.list_versions(session, name, Window(VERSIONS), archived=True).data)
    if newest is None:
        raise NotFound(f"expected a model with a version, got {name!r:.80}; reload the page")
    return newest


def _newest(versions: Sequence[VersionRow]) -> VersionRow | None:
    """The newest version that is not archived, or else the newest of all."""
    return next((version for version in versions if version.archived_at is None), versions[0] if versions else None)


def _head(model: ModelRow, newest: VersionRow | None) -> Markup:
    archived = model.archived_at or (newest.archived_at if newest else None)
    state = badge("archived" if archived else "empty") if archived or newest is None else version_badge(newest)
    note = Markup("{} <span>{}</span>").format(state, first_line(model.description))
    links = Markup(
        '<a class="button" href="/new?source={0}">Clone from it</a>'
        '<a class="button primary" href="/new?target={0}">Teach it classes</a>'
    ).format(quote(model.name))
    usable = newest is not None and newest.status == "ready" and not archived
    actions = Markup('<div class="actions">{}</div>').format(links if usable else "")
    return Markup('<div class="bench">{}{}</div>').format(heading(model.name, "Model", note), actions)


def _facts(model: ModelRow, version: VersionRow) -> Markup:
    spec, aliases = version.spec, aliases_of(model, version.number)
    options = ", ".join(f"{key} {value}" for key, value in spec.get("options", {}).items())
    rows = {
        "Version": Markup("{} {}").format(version.number, chips(aliases, 4)) if aliases else version.number,
        "Architecture": spec["architecture"] + (f" ({options})" if options else ""),
        "Classes": chips(spec["classes"]) if len(spec["classes"]) <= SHOWN else f"{len(spec['classes']):,}",
        "Input": " × ".join(map(str, spec["input_size"])),
        "Preprocessing": Preprocessing(**spec.get("preprocessing", {})).describe(spec["input_size"]),
        "Mean, std": " / ".join(" ".join(f"{number:g}" for number in spec[name]) for name in ("mean", "std")),
        "Parameters": f"{version.parameters:,}" if version.parameters is not None else None,
        "Multiply-adds": count(version.macs) if version.macs is not None else None,
        "File": size(version.bytes),
        "Accuracy": _accuracy(version),
        "Check": _check(version),
        "Licence": version.licence or "not given",
        "Origin": _origin(version),
        "Fingerprint": Markup("<code>{}</code>").format(version.fingerprint) if version.fingerprint else None,
    }
    fault = problem(version.problem.get("detail", "rejected")) if version.problem else _complaint(version)
    return section("Newest version", Markup("{}{}").format(fault, facts(rows)))


def _complaint(version: VersionRow) -> Markup:
    """The newest check in its own words, if it complains."""
    check = version.check or {}
    return problem(check["detail"]) if check.get("outcome") in COMPLAINTS else Markup("")


def _check(version: VersionRow) -> Markup | None:
    """The newest check, with the interval of the accuracy."""
    check = version.check
    if version.checking is not None:
        return Markup("waits for a worker, on {}").format(
            link(f"/datasets/{version.checking}", short(version.checking))
        )
    if check is None:
        return None
    on = link(f"/datasets/{check['dataset']}", short(check["dataset"] or ""))
    if check.get("accuracy") is None:
        return Markup("{} on {}").format(check["detail"], on)
    low, high = percent(check["low"]), percent(check["high"])
    images, chance = f"{check['images']:,}", percent(check["chance"])
    return Markup("{} ({} to {}) on {} images of {}; chance {}").format(
        percent(check["accuracy"]), low, high, images, on, chance
    )


def _origin(version: VersionRow) -> Markup | None:
    origin = version.origin
    if origin is None:
        return None
    revision = Markup(" at <code>{}</code>").format(origin["revision"]) if origin.get("revision") else ""
    digest = Markup(" <code>sha256:{}</code>").format(origin["digest"])
    return Markup("{}{}{}").format(origin["source"], revision, digest)


def _accuracy(version: VersionRow) -> Markup | None:
    if version.accuracy is None:
        return None
    return Markup("{} on {:,} images of {}").format(
        percent(version.accuracy),
        version.accuracy_images,
        link(f"/datasets/{version.accuracy_dataset}", short(version.accuracy_dataset or "")),
    )


def _versions(model: ModelRow, versions: Sequence[VersionRow], rest: int) -> Markup:
    rows = (
        [
            f"v{v.number}",
            version_badge(v) + _why(v),
            chips(aliases_of(model, v.number), 4),
            ago(v.created_at),
        ]
        for v in versions
    )
    listed = table(["Version", "State", "Aliases", "Added"], rows, "Versions")
    return section("Versions", listed + more(rest, command("pnc models show", model.name)))


def _why(version: VersionRow) -> Markup:
    """Why a version was rejected."""
    if version.status != "rejected":
        return Markup("")
    return Markup('<div class="why">{}</div>').format((version.problem or {}).get("detail", "no reason was recorded"))


def _layers(zoo: Zoo, version: VersionRow) -> Markup:
    try:
        with zoo.store.open(version.key) as weights:
            layers = layer_table.layers(weights)
    except (NotFound, TensorFileError, OSError) as error:
        return problem(str(error))
    if not layers:
        return empty("No layers with weights", "The file holds vectors and single numbers only.")
    largest = max(layer.numbers for layer in layers)
    all_numbers = sum(layer.numbers for layer in layers)
    rows = [
        (layer.name, layer.numbers / largest, f"{layer.channels} ch · {layer.numbers / all_numbers:.0%}")
        for layer in layers[:LAYERS]
    ]
    rest = len(layers) - LAYERS
    others = Markup('<p class="faint">and {} more layers</p>').format(rest) if rest > 0 else ""
    return Markup("{}{}").format(bars(rows, "Numbers of each layer"), others)


def _graph(session: Session, model: ModelRow, family: list[ModuleRow]) -> Markup:
    """The newest modules with their models, jobs and deployments, as a picture."""
    if not family:
        return Markup("")
    newest = family[:IN_GRAPH]
    served: dict[str, list[str]] = {}
    for fingerprint in dict.fromkeys(module.target_fingerprint for module in newest):
        for deployment, revision in catalogue.serving(session, fingerprint):
            for attachment in revision.attachments:
                served.setdefault(attachment.module_id, []).append(deployment.name)
    graph = graph_of(newest, served, f"/models/{model.name}")
    hint = (
        f"Of the newest {IN_GRAPH} modules; each box opens its page"
        if len(family) > IN_GRAPH
        else "Each box opens its page"
    )
    return section("Lineage", drawn(graph), hint)


def _lineage(model: ModelRow, family: list[ModuleRow]) -> Markup:
    into = [m for m in family[:FAMILY] if m.target_version.model_id == model.id]
    out = [m for m in family[:FAMILY] if m.source_version.model_id == model.id]
    others = Markup("")
    if len(family) > FAMILY:
        older = link(f"/modules?search={quote(model.name)}", "the list of modules")
        others = Markup('<p class="faint">These are the newest {}; {} has all.</p>').format(FAMILY, older)
    sides = (
        ("Cloned into it", into, "Modules that give this model classes of others"),
        ("Cloned from it", out, "Modules that carry classes of this model elsewhere"),
    )
    return (
        Markup("").join(
            section(title, table(COLUMNS, [row(m) for m in rows], title) if rows else _none(model), hint)
            for title, rows, hint in sides
        )
        + others
    )


def _none(model: ModelRow) -> Markup:
    advice = Markup('Start a job with it: <a href="/new?target={}">New job</a>.').format(quote(model.name))
    return empty("Nothing yet", advice)
