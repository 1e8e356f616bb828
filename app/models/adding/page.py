"""`/add`: add a model from a file of weights, or from torchvision, timm or the Hub."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.datasets import service as datasets
from app.errors import Invalid, NotFound, ZooError
from app.imports import service as imports
from app.models import architectures, checks
from app.models import service as models
from app.models.adding import fields
from app.models.adding.fields import RULES, FieldErrors
from app.models.adding.identifying import Fit, Proposal, identified
from app.models.adding.preprocessing import preprocessing_fields
from app.models.adding.result import Result
from app.models.adding.weights import Weights
from app.models.class_lists import read_class_list
from app.names import check_model_name
from app.process.threads import LONG
from app.web.forms.choosing import dataset_choice
from app.web.forms.form import Form
from app.web.forms.receiving import add_model
from app.web.frame import button, card, frame, heading, markup
from app.web.html import facts, problem, size
from app.web.page_context import PageContext
from pnc_core.errors import ConfigError

_NETWORK = ("architecture", "options")


@ui.page("/add")
async def add_model_page(request: Request, source: str = "") -> None:
    """The page with the steps."""
    with frame(request, "Add a model", "/"):
        note = (
            "Bring a trained classifier. A file is read in your browser: until you choose Add, only the names and "
            "shapes of its tensors are sent, to find the architecture."
        )
        markup(heading("Add a model", note=note))
        for script in ("unpickler.js", "reader.js", "dropping.js"):
            ui.add_body_html(f"<script>{(Path(__file__).parent / script).read_text()}</script>")
        await Wizard(PageContext.of(request)).build(source)


@dataclass(frozen=True)
class _Ready:
    """A complete form whose weights are on their way."""

    name: str
    spec: Any
    licence: str
    dataset: str | None
    turn: int


class Wizard:
    """The steps, and the state of the file that was dropped last.

    Args:
        context: Context of the page.
    """

    def __init__(self, context: PageContext) -> None:
        self._context, self._form = context, Form()
        self._proposal: Proposal | None = None
        self._fit: Fit | None = None
        self._aliases: dict[str, Any] = {}
        self._ready: _Ready | None = None
        self._is_published = False

    async def build(self, source: str) -> None:
        """Add the steps to the page."""
        with ui.element("div").classes("columns"):
            with ui.element("div").classes("stack"):
                with card("1. Weights"):
                    self._weights = Weights(self._context, self._begun, self._outlined, self._received, self._stopped)
                    self._weights.build(self._switched)
                    self._source = self._form.text("source", "Source", _SOURCE_HELP)
                    self._source.set_visibility(False)
                with card("2. Network") as self._network_step:
                    self._network()
                with card("3. Classes and preprocessing") as self._classes_step:
                    await self._classes_and_preprocessing()
                with card("4. Check on images"):
                    help = "A worker measures the accuracy on these images, and tries other preprocessing if it is low."
                    self._dataset = await dataset_choice(self._context, "Dataset to check on", None, self._summarize)
                    self._dataset.props["hint"] = f"{help} Empty: the newest dataset that has all classes, if any."
                    self._dataset.props("clearable bottom-slots")
            with ui.element("div").classes("stack sticky"), card("5. Name and add"):
                self._end()
        if source:
            self._source.set_value(source)
            self._weights.choose_published()

    def _network(self) -> None:
        self._found = markup(Markup("")).props('aria-live="polite"')
        self._fits = ui.radio({}, on_change=self._chosen).props('aria-label="Architectures that fit"')
        self._fits.set_visibility(False)
        with ui.element("div").classes("form"):
            field = self._form.text("architecture", "Architecture", "Found by the tensors; type another to change it.")
            field.on("blur", self._compare)
            field = self._form.text("options", "Options", "name=value, with spaces between; empty: the defaults.")
            field.on("blur", self._compare)

    async def _classes_and_preprocessing(self) -> None:
        form = self._form
        help = "One a line, in the order of the network's outputs. A .txt or .json beside the weights fills this in."
        form.text("classes", "Classes", help, is_long=True).on("blur", self._suggest)
        self._labels = await dataset_choice(self._context, "Take the classes of a dataset", None, self._taken)
        self._told = markup(Markup("")).props('aria-live="polite"')
        preprocessing_fields(form)

    def _end(self) -> None:
        self._form.text("name", "Name of the model", "Lower-case letters, digits and . _ - of your choice.")
        self._form.text("licence", "Licence of the weights", "Shown beside the model, for example MIT.")
        self._summary = markup(Markup("")).props('aria-live="polite"')
        self._add = button("Add", on_click=self._submit, kind="go")
        self._result = Result(self._context, self._apply)
        self._result.build()

    def _switched(self, published: bool) -> None:
        """Show the fields of a file, or of a published network."""
        self._is_published = published
        self._source.set_visibility(published)
        for step in (self._network_step, self._classes_step):
            step.set_visibility(not published)

    def _begun(self) -> None:
        """A file was dropped: forget all that an earlier one filled in."""
        self._proposal = self._fit = self._ready = None
        self._add.set_enabled(True)
        self._aliases = {}
        source = self._form.texts()["source"]
        self._form.clear()
        self._form.fill({"source": source})
        for field in (self._labels, self._dataset):
            field.set_value(None)
        self._fits.set_visibility(False)
        for place in (self._found, self._told):
            place.set_content(Markup(""))
        self._result.clear()

    def _stopped(self) -> None:
        """The browser could not read or send a file."""
        self._ready = None
        self._add.set_enabled(True)
        self._result.clear()

    async def _outlined(self, outline: dict[str, Any] | None, texts: dict[str, Any]) -> str:
        """Propose a network for a file, or apply texts to the file that is there; returns a sentence about the file.

        Raises:
            Invalid: the file holds no network, or the texts cannot be used.
        """
        if outline is None and self._weights.outline is None:
            detail = "expected the weights with it, got a text alone; drop both together"
            raise Invalid.at("/weights", "no_weights", detail)
        if outline is not None:
            self._proposal = await LONG.run(identified, outline)
            self._propose(self._proposal)
            self._form.fill({"name": fields.name_of(outline["name"])})
        if "json" in texts or "txt" in texts:
            await self._read(texts)
        await self._suggest()
        assert self._proposal is not None
        proposal = self._proposal
        return f"{proposal.tensors:,} tensors, {proposal.classes:,} classes"

    def _propose(self, proposal: Proposal) -> None:
        notes = Markup("").join(Markup("<li>{}</li>").format(note) for note in proposal.notes)
        self._found.set_content(Markup('<ul class="warnings">{}</ul>').format(notes) if notes else Markup(""))
        if len(proposal.fits) > 1:
            chosen = None if proposal.chosen is None else proposal.fits.index(proposal.chosen)
            self._fits.set_options({n: fit.title for n, fit in enumerate(proposal.fits)}, value=chosen)
            self._fits.set_visibility(True)
        if proposal.chosen is not None:
            self._take(proposal.chosen)
        elif proposal.fits:
            several = "several architectures take these tensors and compute different answers; choose yours above"
            self._form.complain({"architecture": several})
        else:
            self._form.complain({"architecture": proposal.difference})

    def _take(self, fit: Fit, *, is_proposed: bool = True) -> None:
        """Fill in what an architecture tells.

        Args:
            fit: The architecture.
            is_proposed: Whether the rules of the preprocessing are replaced, too: they are never empty.
        """
        self._fit = fit
        filled = fields.shown({"architecture": fit.architecture, "options": fit.options, **fit.usual, **fit.known})
        empty = {name for name, text in self._form.texts().items() if not text} | set(_NETWORK)
        empty |= set(RULES) if is_proposed else set()
        self._form.fill({name: text for name, text in filled.items() if name in empty})
        self._told.set_content(Markup('<p class="hint plain">{}</p>').format(fit.advice))
        self._summarize()

    def _chosen(self, event: Any) -> None:
        if self._proposal is not None and event.value is not None:
            self._take(self._proposal.fits[event.value])

    async def _read(self, texts: dict[str, Any]) -> None:
        """Fill in a description (.json) or a list of classes that came beside the weights."""
        file, text = texts.get("txt") or texts["json"]
        try:
            value = json.loads(text) if "json" in texts else None
            described = value if isinstance(value, dict) and "architecture" in value else read_class_list(text)
            shown = fields.shown(described)
        except (ValueError, TypeError, AttributeError, ConfigError) as error:
            detail = f"{file}: expected a description of the network or a list of classes, got another text ({error})"
            raise Invalid.at("/weights", "invalid_spec", f"{detail:.300}") from None
        self._aliases = described.get("class_aliases") or {}
        self._form.fill({name: text for name, text in shown.items() if text})
        self._told.set_content(Markup('<p class="hint plain">{}</p>').format(f"Filled in from {file}."))
        await self._compare()

    async def _compare(self) -> None:
        """Compare the file with the architecture and the options in the fields, if they have changed."""
        texts, outline = self._form.texts(), self._weights.outline
        name = texts["architecture"].strip()
        if outline is None or not name or self._is_published:
            return
        try:
            wanted: dict[str, Any] = {"architecture": name, "options": fields.options_of(texts["options"])}
            if self._fit and (self._fit.architecture, self._fit.options) == (name, wanted["options"]):
                return
            self._fit = None
            wanted["input_size"] = fields.size_of(texts["input_size"]) if texts["input_size"] else None
            proposal = await LONG.run(identified, outline, wanted)
        except FieldErrors as error:
            self._form.complain(error.messages)
            return
        except Invalid as error:
            self._form.complain({"architecture": str(error)})
            return
        if self._form.texts()["architecture"].strip() != name:
            return  # a later change is compared itself
        if proposal.chosen is None:
            self._form.complain({"architecture": proposal.difference})
        else:
            self._take(proposal.chosen, is_proposed=False)

    async def _taken(self) -> None:
        """Fill in the classes of a dataset."""
        chosen = self._labels.value
        if chosen is None:
            return
        try:
            row = await self._context.read(lambda session: datasets.get(session, chosen))
        except NotFound:
            return
        self._aliases = {}
        self._form.fill({"classes": "\n".join(row.classes)})
        if self._dataset.value is None:
            await self._suggest()

    async def _suggest(self) -> None:
        """Propose a dataset that has all classes, where none is chosen."""
        try:
            listed = read_class_list(self._form.texts()["classes"])["classes"]
        except ConfigError:
            listed = []
        if listed and self._dataset.value is None:
            workspace = self._context.caller.workspace
            row = await self._context.read(lambda session: checks.dataset_for(session, workspace, listed))
            if row is not None:
                known = {**self._dataset.options, row.id: f"{row.name} · {row.rows:,} images"}
                self._dataset.set_options(known, value=row.id)
        self._summarize()

    def _summarize(self) -> None:
        texts, proposal = self._form.texts(), self._proposal
        if self._is_published:
            rows: dict[str, object] = {"Source": texts["source"], "Fetched by": "a worker of this service"}
        else:
            bytes_ = self._weights.bytes
            rows = {
                "File": f"{self._weights.name} · {size(bytes_)}" if bytes_ else None,
                "Network": self._fit.title if self._fit else None,
                "Outputs": f"{proposal.classes:,}" if proposal else None,
            }
        self._summary.set_content(facts(rows))

    async def _submit(self) -> None:
        """Check all fields; send the weights, or ask for the import."""
        self._result.clear()
        texts = {name: text.strip() for name, text in self._form.texts().items()}
        try:
            if self._is_published:
                await self._import(texts)
                return
            if self._weights.outline is None:
                self._result.show(problem("Drop a file of weights first."))
                return
            await self._compare()
            spec = await self._described(texts)
        except FieldErrors as error:
            self._form.complain(error.messages)
            count = len(self._form.faults)
            fields_need = "1 field needs" if count == 1 else f"{count} fields need"
            self._result.show(problem(f"Nothing is sent yet: {fields_need} another value."))
            return
        assert self._fit is not None
        self._ready = _Ready(texts["name"], spec, texts["licence"], self._dataset.value, self._weights.turn)
        self._result.show(_SENDING)
        self._add.set_enabled(False)
        self._weights.send(self._fit.plan, f"{Path(self._weights.name).stem}.safetensors")

    async def _described(self, texts: dict[str, str]) -> Any:
        """The description of the network.

        Raises:
            FieldErrors: a field has no usable value.
        """
        faults = {name: text for name, text in self._form.faults.items() if name != "source"}
        try:
            check_model_name(texts["name"])
        except Invalid as error:
            faults["name"] = str(error)
        try:
            spec = fields.description(texts, self._proposal.classes if self._proposal else 0, self._aliases)
        except FieldErrors as error:
            faults |= {name: text for name, text in error.messages.items() if name not in faults}
        else:
            wrong = await LONG.run(architectures.problems, spec)
            if wrong and "architecture" not in faults:
                faults["architecture"] = wrong[0].detail
            if not faults and self._fit is None:
                faults["architecture"] = "expected an architecture that takes the tensors, got none; choose another"
            if not faults:
                return spec
        raise FieldErrors(faults)

    async def _received(self, file: Any) -> None:
        """The weights have arrived: add them."""
        ready, self._ready = self._ready, None
        self._add.set_enabled(True)
        if ready is None or ready.turn != self._weights.turn:
            return
        try:
            ref = await add_model(self._context, ready.name, ready.spec, file, ready.licence, ready.dataset)
        except (ZooError, OSError) as error:
            self._refused(error)
            return
        self._result.follow_version(ref)

    def _refused(self, error: Exception) -> None:
        """Show why the service refuses, at the field that it names."""
        problems = error.problems if isinstance(error, Invalid) else ()
        placed = {"/name": "name", "/source": "source", "/spec/architecture": "architecture"}
        self._form.complain({placed[one.pointer]: one.detail for one in problems if one.pointer in placed})
        self._result.show(problem(str(error)))

    async def _import(self, texts: dict[str, str]) -> None:
        hosts = self._context.zoo.settings.import_hosts

        def work(session: Session) -> str:
            row = imports.submit(
                session, source=texts["source"], name=texts["name"], licence=texts["licence"], hosts=hosts
            )
            return row.id

        try:
            started = await self._context.write(work)
        except ZooError as error:
            self._refused(error)
            return
        self._result.follow_import(started, self._dataset.value)

    async def _apply(self, ref: str, changes: dict[str, Any]) -> None:
        """Fill in what a check of a version proposes, so that the visitor can add the weights again."""
        spec = await self._context.read(lambda session: models.spec_of(models.resolve(session, ref)))
        described = spec.to_dict() | changes
        self._form.fill(fields.shown(described))
        self._result.clear()
        await self._compare()


_SOURCE_HELP = (
    "torchvision/resnet18, timm/resnet18.a1_in1k or hf://owner/name. A worker fetches weights, classes and "
    "preprocessing."
)
_SENDING = Markup(
    '<div class="sending"><p>The weights are being sent.</p>'
    '<progress max="1" value="0" aria-label="Sent"></progress></div>'
)
