"""`/new`: a form that submits a cloning job, and shows its problems and its cost while it is filled in."""

import asyncio
from typing import Any, get_args

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request

from app.errors import ZooError
from app.jobs import service as jobs
from app.jobs.service import JobRequest
from app.web.choosing import dataset_choice, model_choice
from app.web.class_choice import Asked, ClassChoice
from app.web.frame import button, frame, heading, markup, tell
from app.web.html import count, empty, facts, problem, section, title
from app.web.page_context import PageContext
from pnc_core.config import CloneConfig, Localizer
from pnc_core.errors import ConfigError

_PAUSE = 0.15
"""Seconds without a change before the form is checked."""
_CHOICES: dict[str, dict[str, str]] = {
    "preset": {"joint": "Joint (minutes)", "fast": "Fast (seconds)"},
    "locality": {
        "soft": "Soft: old predictions may change slightly",
        "strict": "Strict: old predictions do not change",
    },
    "localizer": {name: name for name in get_args(Localizer)},
    "head": {"auto": "Best on held-out images", "affine": "Affine", "router": "Router", "joint": "Joint"},
}
_NUMBERS: dict[str, tuple[str, float, float, float]] = {
    "keep": ("Kept share of the cloned layers' parameters", 0.05, 1, 0.05),
    "max_size": ("Largest module size, as a share of the source; empty: by need", 0.05, 2, 0.05),
    "epochs": ("Epochs of feature matching", 1, 1000, 1),
    "shortlist": ("Number of positions to train", 1, 64, 1),
    "batch_size": ("Batch size", 2, 65536, 1),
    "seed": ("Seed", 0, 2**32 - 1, 1),
}
_ASKED = ("preset", "keep", "epochs")
"""Fields that are always shown; “More options” shows the others."""
_OPTIONAL = ("max_size",)
"""Numbers that may be left empty."""
_FLAGS = {
    "old_images": "The dataset has images of the target's own classes",
    "labels": "Use the dataset's labels",
    "keep_anyway": "Publish the module although an answer without a module is better",
}


@ui.page("/new")
async def new_job_page(request: Request, target: str | None = None, source: str | None = None) -> None:
    """The page with the form."""
    with frame(request, "New job", "/jobs"):
        markup(
            heading(
                "New job", note="Clone classes of a source into a module for a target. Both networks stay as they are."
            )
        )
        await _Form(PageContext.of(request), target, source).build()


class _Form:
    """The form's fields, and the result of checking them."""

    def __init__(self, context: PageContext, target: str | None, source: str | None) -> None:
        self._context, self._given = context, (target, source)
        self._classes = ClassChoice(context, self.judge)
        self._fields: dict[str, Any] = {}
        self._version = 0

    async def build(self) -> None:
        with ui.element("div").classes("columns"):
            with ui.element("div").classes("stack"):
                with ui.element("section").classes("card stack tight"):
                    markup(title("Networks and classes"))
                    await self._choices()
                    self._classes.build()
                with ui.element("section").classes("card stack tight"):
                    markup(title("Parameters"))
                    self._parameters()
            with ui.element("div").classes("stack"):
                self._verdict = markup(Markup("")).props('aria-live="polite"')
                self._post = button("Start the job", on_click=self._submit, kind="go")
        await self._networks_changed()

    async def _choices(self) -> None:
        self._source = await model_choice(
            self._context, "Source: has the classes", self._given[1], self._networks_changed
        )
        self._target = await model_choice(
            self._context, "Target: gains the classes", self._given[0], self._networks_changed
        )
        self._data = await dataset_choice(self._context, "Dataset: images of both", None, self._networks_changed)
        if self._data.value is None and self._data.options:
            self._data.set_value(next(iter(self._data.options)))

    def _parameters(self) -> None:
        defaults = CloneConfig(classes=("any",))
        with ui.element("div").classes("form"):
            for name in _ASKED:
                self._field(name, defaults)
        with ui.expansion("More options").props("dense"), ui.element("div").classes("form"):
            for name in (*_CHOICES, *_NUMBERS):
                if name not in _ASKED:
                    self._field(name, defaults)
            for name, label in _FLAGS.items():
                self._fields[name] = ui.switch(label, value=getattr(defaults, name), on_change=self.judge)

    def _field(self, name: str, defaults: CloneConfig) -> None:
        value = getattr(defaults, name)
        if name in _CHOICES:
            label = name.capitalize()
            field: Any = ui.select(_CHOICES[name], label=label, value=value, on_change=self.judge)
        else:
            label, low, high, step = _NUMBERS[name]
            field = ui.number(label, value=value, min=low, max=high, step=step, on_change=self.judge)
        self._fields[name] = field.props(f'outlined dense options-dense aria-label="{label}"')

    async def _networks_changed(self) -> None:
        await self._classes.show(Asked(self._source.value, self._target.value, self._data.value))
        await self.judge()

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
            advice = "Choose source, target, dataset and at least one class. Problems and costs are shown here."
            self._show(empty("Nothing to check yet", advice), valid=False)
            return
        problems, estimate, odd = await self._context.read(lambda session: jobs.validate(session, request))
        faults = Markup("").join(problem(fault.detail) for fault in problems)
        fine = Markup('<div class="fine"><i aria-hidden="true">✓</i><span>This job would be accepted.</span></div>')
        cost = {} if estimate is None else {
            "Images of old classes": f"{estimate.old_images:,}",
            "Images of cloned classes": f"{estimate.new_images:,}",
            "Multiply-accumulates, at most": count(estimate.macs),
            "Parameters of the module, at most": count(estimate.module_parameters),
        }  # fmt: skip
        odd_lines = Markup("").join(Markup("<li>{}</li>").format(one["detail"]) for one in odd)
        notes = Markup('<ul class="warnings">{}</ul>').format(odd_lines) if odd else ""
        content = Markup('<div class="problems">{}{}</div>{}').format(faults or fine, notes, facts(cost))
        self._show(content, valid=not problems)

    def _request(self) -> JobRequest | None:
        classes = tuple(self._classes.chosen)
        if not (classes and self._source.value and self._target.value and self._data.value):
            return None
        given = {name: field.value for name, field in self._fields.items()}
        for name, (_, _, _, step) in _NUMBERS.items():
            if given[name] is None:
                if name in _OPTIONAL:
                    continue
                raise ValueError(f"{name}: expected a number, got none")
            given[name] = int(given[name]) if step == 1 else round(float(given[name]), 6)
        config = CloneConfig(classes=classes, **given)
        return JobRequest(target=self._target.value, source=self._source.value, dataset=self._data.value, config=config)

    def _show(self, content: Markup, *, valid: bool) -> None:
        self._verdict.set_content(section("Before you start", content, "Checked while you choose; nothing is saved"))
        self._post.set_enabled(valid)

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
