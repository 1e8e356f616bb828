"""`/new`: a form that submits a cloning job, and shows its problems, its cost and a forecast while it is filled in."""

import asyncio
from collections.abc import Callable
from typing import Any

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.errors import Invalid, ZooError
from app.jobs import service as jobs
from app.jobs.asking import options, proposing
from app.jobs.asking.advising import advised
from app.jobs.asking.learning import Asked, ClassChoice
from app.jobs.service import JobRequest, Validation
from app.models import service as models
from app.process.threads import LONG
from app.web.forms.choosing import dataset_choice, model_choice
from app.web.frame import button, card, frame, heading, markup, tell
from app.web.html import count, duration, empty, facts, link, percent, problem, section
from app.web.page_context import PageContext
from app.web.words import term
from pnc_core.config import CloneConfig
from pnc_core.errors import ConfigError

_PAUSE = 0.15
"""Seconds without a change before the form is checked."""
_BYTES = 4
"""Of one number in a module's file."""
WORD_OF = {"locality": "locality", "head": "head", "localizer": "log-odds", "keep": "tail", "shortlist": "position"}
"""The word that each option is about, if `/help` explains it."""
SOURCE, DATASET = "Source: has the classes", "Dataset: images of both"


@ui.page("/new")
async def new_job_page(request: Request, target: str | None = None, source: str | None = None) -> None:
    """The page with the form."""
    with frame(request, "New job", "/jobs"):
        note = (
            "A model, the target, learns classes of another, the source. Both stay as they are: what is learned "
            "becomes a module that you can attach and detach."
        )
        markup(heading("New job", note=note))
        await _Form(PageContext.of(request), target, source).build()


class _Form:
    """The form's fields, and the result of checking them."""

    def __init__(self, context: PageContext, target: str | None, source: str | None) -> None:
        self._context, self._given = context, (target, source)
        self._learning = ClassChoice(context, self._classes_changed)
        self._fields: dict[str, Any] = {}
        self._proposed: dict[str, str | None] = {"source": None, "dataset": None}
        self._mine = {"source": source is not None, "dataset": False}
        """Whether the visitor has chosen the source, and the dataset. The form proposes the others."""
        self._version = 0
        self._forecasts: dict[object, Markup] = {}
        self._offered: object = None
        """The job that a forecast is offered for."""

    async def build(self) -> None:
        with ui.element("div").classes("columns"):
            with ui.element("div").classes("stack"):
                with card("1. The model that learns"):
                    label = "Target: gains the classes"
                    self._target = await model_choice(self._context, label, self._given[0], self._target_changed)
                with card("2. Classes that it should learn"):
                    self._learning.build()
                with card("3. Where they come from"):
                    await self._material()
                with card("4. Options"):
                    self._options()
            with ui.element("div").classes("stack sticky"):
                self._verdict = markup(Markup("")).props('aria-live="polite"')
                self._forecast = ui.element("div").classes("stack tight")
                self._post = button("Start the job", on_click=self._submit, kind="go")
        await self._target_changed()

    async def _material(self) -> None:
        self._source = await model_choice(self._context, SOURCE, self._given[1], self._chosen("source"))
        self._data = await dataset_choice(self._context, DATASET, None, self._chosen("dataset"))
        for field in (self._source, self._data):
            field.props("clearable bottom-slots")

    def _options(self) -> None:
        defaults = CloneConfig(classes=("any",))
        with ui.expansion("More options").props("dense"), ui.element("div").classes("options"):
            for choice in options.CHOICES:
                value = getattr(defaults, choice.name)
                field: Any = ui.select(choice.values, label=choice.label, value=value, on_change=self.judge)
                self._option(choice.name, choice.label, choice.help, field)
            for one in options.NUMBERS:
                value = getattr(defaults, one.name)
                field = ui.number(
                    one.label, value=value, min=one.low, max=one.high, step=one.step, on_change=self.judge
                )
                self._option(one.name, one.label, one.help, field)
            for flag in options.FLAGS:
                with ui.element("div"):
                    self._fields[flag.name] = ui.switch(
                        flag.label, value=getattr(defaults, flag.name), on_change=self.judge
                    )
                    markup(Markup('<p class="help flag">{}</p>').format(flag.help))

    def _option(self, name: str, label: str, help: str, field: Any) -> None:
        field.props(f'outlined dense options-dense aria-label="{label}"')
        about = Markup(" ({})").format(term(WORD_OF[name])) if name in WORD_OF else ""
        markup(Markup('<p class="help">{}{}</p>').format(help, about))
        self._fields[name] = field

    def _chosen(self, name: str) -> Callable[[Any], Any]:
        """The handler of a change of the source or the dataset; a change by a proposal is no choice."""

        async def changed(event: Any) -> None:
            if event.value == self._proposed[name]:
                return
            self._mine[name] = event.value is not None
            self._proposed[name] = None
            await self._target_changed()

        return changed

    async def _target_changed(self) -> None:
        await self._learning.show(self._asked())
        await self._classes_changed()

    async def _classes_changed(self) -> None:
        before = self._data.value
        await self._propose()
        if self._data.value != before and self._mine["source"]:
            await self._learning.show(self._asked())  # with the images of each class
        await self.judge()

    def _asked(self) -> Asked:
        source = self._source.value if self._mine["source"] else None
        return Asked(source, self._target.value, self._data.value)

    async def _propose(self) -> None:
        """Fill in the source and the dataset that the visitor has not chosen."""
        target, classes = self._target.value, list(self._learning.chosen)
        if not self._mine["source"]:
            found = []
            if target and classes:
                found = await self._context.read(lambda session: proposing.sources(session, target, classes))
            best = found[0] if found else None
            told = "" if best is None else f"Proposed: it has {_all(classes)}{_accurate(best.accuracy)}."
            name = None if best is None else best.model.name
            self._put("source", self._source, name, name, told)
        if not self._mine["dataset"]:
            row = None
            if target and classes:
                row = await self._context.read(
                    lambda session: proposing.dataset(session, models.resolve(session, target), classes)
                )
            label = None if row is None else f"{row.name} · {row.rows:,} images · …{row.id[-6:]}"
            told = "" if row is None else f"Proposed: {row.old:,} images of old classes and {row.new:,} of new ones."
            self._put("dataset", self._data, None if row is None else row.id, label, told)

    def _put(self, name: str, field: Any, value: str | None, label: str | None, told: str) -> None:
        self._proposed[name] = value
        field.props["hint"] = told
        if value is not None and value not in field.options:
            field.set_options({**field.options, value: label})
        if field.value != value:
            field.set_value(value)

    async def judge(self) -> None:
        """Check the form `_PAUSE` seconds after the last change, and show problems and cost."""
        self._version += 1
        version = self._version
        await asyncio.sleep(_PAUSE)
        if version != self._version:
            return
        try:
            request = self._request()
        except (ConfigError, ValueError, TypeError) as error:
            self._show(problem(str(error)), valid=False)
            return
        if request is None:
            advice = "Choose a target and at least one class. Problems, size and time are shown here."
            self._show(empty("Nothing to check yet", advice), valid=False)
            return
        complete = request
        found = await self._context.read(lambda session: jobs.validate(session, complete))
        if version == self._version:
            self._show(_judged(found), valid=not found.problems)
            self._offer_forecast(request, found)

    def _offer_forecast(self, request: JobRequest, found: Validation) -> None:
        """A button that forecasts the accuracy, or the forecast that was made of this job."""
        self._forecast.clear()
        self._offered = None
        if found.problems:
            return
        key = self._offered = (
            request.target, request.source, request.dataset, request.config.classes, request.config.preset
        )  # fmt: skip
        if key in self._forecasts:
            self._show_forecast(key, self._forecasts[key])
            return

        async def forecast() -> None:
            waiting = Markup('<p class="hint plain">Both networks look at some images …</p>')
            self._show_forecast(key, section("Forecast", waiting))
            self._show_forecast(key, await self._forecasted(request))

        with self._forecast:
            button("Forecast accuracy and time", on_click=forecast)

    def _show_forecast(self, key: object, content: Markup) -> None:
        """Show a forecast if the form still describes its job; another check may have replaced the button meanwhile."""
        self._forecasts[key] = content
        if self._offered == key:
            self._forecast.clear()
            with self._forecast:
                markup(content).props('aria-live="polite"')

    async def _forecasted(self, request: JobRequest) -> Markup:
        try:
            told = await LONG.run(advised, self._context.zoo, request)
        except Invalid as error:
            return section("Forecast", problem(str(error)))
        rows = {
            "Accuracy": f"{percent(told['accuracy'])} ({100 * told['low']:.0f} to {100 * told['high']:.0f} %)",
            "On old classes": percent(told["old"]),
            "On new classes": percent(told["new"]),
            "Time": f"about {duration(max(1.0, told['seconds']))} on this machine",
            "With four times the images": f"about {100 * told['more_accuracy']:.0f} %",
        }
        hint = f"From {told['images']:,} images, with an interval of 90 %; nothing is cloned for it"
        return section("Forecast", facts(rows) + Markup('<p class="hint plain">{}</p>').format(told["text"]), hint)

    def _request(self) -> JobRequest | None:
        classes = tuple(self._learning.chosen)
        if not (classes and self._source.value and self._target.value and self._data.value):
            return None
        given: dict[str, Any] = {
            one.name: self._fields[one.name].value for one in (*options.CHOICES, *options.FLAGS, *options.NUMBERS)
        }
        for one in options.NUMBERS:
            if given[one.name] is None:
                if one.optional:
                    continue
                raise ValueError(f"{one.name}: expected a number, got none")
            given[one.name] = int(given[one.name]) if one.step == 1 else round(float(given[one.name]), 6)
        config = CloneConfig(classes=classes, **given)
        return JobRequest(target=self._target.value, source=self._source.value, dataset=self._data.value, config=config)

    def _show(self, content: Markup, *, valid: bool) -> None:
        self._verdict.set_content(section("Before you start", content, "Checked while you choose; nothing is saved"))
        self._post.set_enabled(valid)
        if not valid:
            self._forecast.clear()

    async def _submit(self) -> None:
        try:
            request = self._request()
            if request is None:
                return
            complete = request
            job = await self._context.write(lambda session: jobs.submit(session, complete).id, "jobs")
        except (ZooError, ConfigError, ValueError) as error:
            tell(error)
            return
        ui.navigate.to(f"/jobs/{job}")


def _all(classes: list[str]) -> str:
    return "this class" if len(classes) == 1 else f"all {len(classes)} classes"


def _accurate(share: float | None) -> str:
    return "" if share is None else f" and an accuracy of {percent(share)}"


def _judged(found: Validation) -> Markup:
    """Problems, oddities and cost of a job."""
    faults = Markup("").join(problem(fault.detail) for fault in found.problems)
    if any(fault.pointer == "/dataset" for fault in found.problems):
        faults += Markup('<p class="hint plain">{}</p>').format(
            Markup("Add images of old and new classes on {}.").format(link("/datasets", "the page of datasets"))
        )
    fine = Markup('<div class="fine"><i aria-hidden="true">✓</i><span>This job would be accepted.</span></div>')
    estimate = found.estimate
    cost = {} if estimate is None else {
        "Images of old classes": f"{estimate.old_images:,}",
        "Images of new classes": f"{estimate.new_images:,}",
        "Size of the module, at most": _size(estimate.module_parameters),
        "Multiply-accumulates, at most": count(estimate.macs),
    }  # fmt: skip
    odd_lines = Markup("").join(Markup("<li>{}</li>").format(one["detail"]) for one in found.warnings)
    notes = Markup('<ul class="warnings">{}</ul>').format(odd_lines) if odd_lines else ""
    return Markup('<div class="problems">{}{}</div>{}').format(faults or fine, notes, facts(cost))


def _size(parameters: int | None) -> str:
    return "—" if parameters is None else f"{count(parameters)} parameters, {count(_BYTES * parameters)}B"
