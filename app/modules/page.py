"""`/modules/ID`: a module's accuracy, size, provenance and deployments."""

import json

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.deployments import service as deployments
from app.errors import NotFound, ZooError
from app.lifecycle.panel import ArchivePanel
from app.models import layer_table
from app.modules import service as modules
from app.modules.accuracy import accuracy_section
from app.modules.matrices import matrices
from app.modules.tables import ModuleRow
from app.web import catalogue
from app.web.drawing import bars, mask_strips
from app.web.frame import button, frame, heading, markup, missing, notify, tell
from app.web.html import (
    ago,
    badge,
    chips,
    count,
    empty,
    facts,
    id_link,
    identifier,
    link,
    model_link,
    problem,
    section,
    size,
    table,
)
from app.web.page_context import PageContext
from app.web.words import WORDS, term
from app.zoo import Zoo
from pnc_core.errors import TensorFileError


@ui.page("/modules/{module}")
async def module_page(request: Request, module: str) -> Response | None:
    """The page of one module."""
    context = PageContext.of(request)
    try:
        row = await context.read(lambda session: modules.get(session, module))
        content = await context.read(lambda session: _content(session, context.zoo, module))
    except NotFound as error:
        return missing(request, error, "/modules")

    def find(session: Session) -> ModuleRow:
        return modules.get(session, module, purged=True)

    def set_archived(session: Session, archived: bool) -> ModuleRow:
        return modules.set_archived(session, module, archived)

    with frame(request, f"Module of {', '.join(row.classes[:4])}", "/modules"):
        with ui.element("div").classes("bench"):
            markup(_head(row))
            with ui.element("div").classes("actions"):
                markup(_downloads(row), "span").classes("actions")
                serve = button("Serve this module", kind="go")
                serve.on_click(lambda: _serve(context, row))
                serve.set_visibility(row.archived_at is None)
        markup(content).classes("stack")
        ArchivePanel(context, find, set_archived, "/modules").build(row.archived_at is not None)
    return None


async def _serve(context: PageContext, module: ModuleRow) -> None:
    """Attach a module to the newest deployment of its target, or to a new deployment, and open its page."""

    def find(session: Session) -> str | None:
        found = catalogue.serving(session, module.target_fingerprint, 1)
        return found[0][0].name if found else None

    name = await context.read(find)
    try:
        if name is None:
            name = module.target_version.model.name
            target = module.target_version.ref
            refusal = await context.roll_out(lambda session: deployments.put(session, name or "", target))
            if refusal is not None:
                notify(refusal, good=False)
                return
        place = name
        refusal = await context.roll_out(lambda session: deployments.attach(session, place, module.id))
    except ZooError as error:
        tell(error)
        return
    if refusal is None:
        ui.navigate.to(f"/deployments/{name}")
    else:
        notify(refusal, good=False)


def _head(module: ModuleRow) -> Markup:
    title = Markup("{} <span class='faint'>from</span> {}").format(
        ", ".join(module.classes[:6]) + (" …" if len(module.classes) > 6 else ""), module.source_version.model.name
    )
    state = badge("archived") if module.archived_at else ""
    note = Markup("{} {} {}").format(state, identifier(module.id), ago(module.created_at))
    return heading(title, "Module", note)


def _downloads(module: ModuleRow) -> Markup:
    return Markup("").join(
        Markup(
            '<a class="button" href="/v1/modules/{}/bundle?payload={}" download title="{}">Download {} · {}</a>'
        ).format(module.id, bundle.payload, WORDS.get(bundle.payload, ""), bundle.payload, size(bundle.bytes))
        for bundle in sorted(module.bundles, key=lambda bundle: bundle.payload)
    )


def _content(session: Session, zoo: Zoo, module_id: str) -> Markup:
    module = modules.get(session, module_id)
    kept = section(
        "Kept channels",
        _masks(zoo, module),
        Markup("Each strip is a layer of the {}. Filled: channels in the module").format(term("tail")),
    )
    left = Markup('<div class="stack">{}{}{}{}</div>').format(
        accuracy_section(module, "Accuracy"), matrices(module.evidence or {}), kept, _served(session, module)
    )
    right = Markup('<div class="stack">{}{}{}</div>').format(_facts(module), _sizes(module), _parameters(module))
    return Markup('<div class="columns">{}{}</div>').format(left, right)


def _facts(module: ModuleRow) -> Markup:
    manifest, position = module.manifest, module.manifest.get("position", {})
    head = manifest.get("head", {})
    rows = {
        "Adds": chips(module.classes, 30),
        "Into": model_link(module.target_ref),
        "From": model_link(module.source_ref),
        "By job": id_link(f"/jobs/{module.job_id}", module.job_id),
        term("position", "Read at"): Markup("<code>{}</code> of the target").format(position["target"])
        if "target" in position
        else None,
        term("position", "Enters at"): Markup("<code>{}</code> of the source").format(position["source"])
        if "source" in position
        else None,
        term("kept channels", "Kept"): Markup("{} of the parameters of the {}").format(
            f"{manifest['kept_fraction']:.0%}", term("tail")
        )
        if "kept_fraction" in manifest
        else None,
        term("head", "Head"): head.get("kind"),
        term("locality", "Locality"): manifest.get("config", {}).get("locality"),
        term("fingerprint", "Fits"): Markup("<code>{}</code>").format(module.target_fingerprint),
        "Made by": manifest.get("created_by"),
    }
    return section("Provenance", facts(rows))


def _sizes(module: ModuleRow) -> Markup:
    sizes = module.manifest.get("sizes", {})
    whole = max(sizes.get("source", 0), 1)
    names = {"source": "whole source", "module": "kept channels", "adapter": "adapters", "head": "head"}
    rows = [(names[part], sizes[part] / whole, f"{count(sizes[part])}") for part in names if part in sizes]
    files = [(f"{b.payload} file", b.bytes / (4 * whole), size(b.bytes)) for b in module.bundles] if sizes else []
    return section(
        "Size",
        bars([*rows, *files], "Parameters and bytes"),
        Markup("Parameters of the source and of the module's parts; the file is {} or {}").format(
            term("thin"), term("full")
        ),
    )


def _masks(zoo: Zoo, module: ModuleRow) -> Markup:
    bundle = min(module.bundles, key=lambda b: b.bytes)
    try:
        with zoo.store.open(bundle.key) as file, zoo.store.open(module.source_version.key) as source:
            found = layer_table.masks(file, source)
    except (NotFound, TensorFileError, OSError) as error:
        return problem(str(error))
    return mask_strips(found) if found else empty("No channels were removed", "The module keeps all channels.")


def _parameters(module: ModuleRow) -> Markup:
    config = {name: value for name, value in module.manifest.get("config", {}).items() if name != "classes"}
    rows = {name.replace("_", " "): _plain(value) for name, value in config.items()}
    return section(
        "Parameters", Markup("<details><summary>Parameters of the job</summary>{}</details>").format(facts(rows))
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _served(session: Session, module: ModuleRow) -> Markup:
    rows = [
        [
            link(f"/deployments/{deployment.name}", deployment.name),
            "attached" if module.id in {a.module_id for a in revision.attachments} else "not attached",
            deployment.generation,
        ]
        for deployment, revision in catalogue.serving(session, module.target_fingerprint)
    ]
    none = empty("Not served yet", "“Serve this module” makes a deployment of the target and attaches the module.")
    content = table(["Deployment", "This module", "#Generation"], rows, "Deployments") if rows else none
    return section("Deployments of the target", content)
