"""The part of a deployment's page that starts, changes, promotes and ends a canary."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from markupsafe import Markup
from nicegui import ui
from sqlalchemy.orm import Session

from app.deployments.canary import service as canaries
from app.deployments.service import Change
from app.deployments.tables import CanaryRevisionRow, RevisionRow
from app.errors import Invalid
from app.modules.tables import ModuleRow
from app.web.frame import button, markup, tell
from app.web.html import badge, chips, facts, percent, title
from pnc_client.schemas.canaries import CanaryCounts

_HINT = "A second set of modules on a share of the requests, compared with the attached modules."
_MODES = {"canary": "Answers the share", "shadow": "Shadow: only runs on the share"}
_FEW = 6
"""Number of classes that are shown for a set of modules."""
Work = Callable[[Session], Change]


class CanaryPanel:
    """The card about the canary. A change of the deployment redraws it; new counts replace only the counts.

    Args:
        name: Name of the deployment.
        change: Makes a change of the deployment.
    """

    def __init__(self, name: str, change: Callable[[Work], Awaitable[None]]) -> None:
        self._name, self._change = name, change
        self._drawn: tuple[object, ...] | None = None
        """Generation and modules for which the fields were made; what a visitor typed stays while these stay."""

    def build(self) -> None:
        """Add the card to the page."""
        with ui.element("section").classes("card stack tight"):
            markup(title("Canary", _HINT))
            self._state = markup(Markup(""))
            self._form = ui.element("div").classes("stack tight")

    def show_counts(self, wanted: RevisionRow) -> None:
        """Show the canary of a revision with its counts."""
        self._state.set_content(described(wanted.canary))

    def draw(self, wanted: RevisionRow, fitting: Sequence[ModuleRow]) -> None:
        """Show the canary of a revision, and fields to change it.

        Args:
            wanted: The desired revision.
            fitting: Modules that fit the target.
        """
        self.show_counts(wanted)
        fields = (wanted.generation, *(module.id for module in fitting))
        if fields == self._drawn:
            return
        self._drawn, canary = fields, wanted.canary
        members = [] if canary is None else [m.module for m in canary.canary.members]
        self._form.clear()
        with self._form:
            self._fields(wanted, {module.id: _label(module) for module in [*members, *fitting]})
            with ui.element("div").classes("actions"):
                button("Start" if canary is None else "Change", on_click=self._put, kind="go")
                if canary is not None:
                    button("Promote", on_click=lambda: self._change(lambda s: canaries.promote(s, self._name)))
                    button("End", on_click=lambda: self._change(lambda s: canaries.end(s, self._name)))

    def _fields(self, wanted: RevisionRow, options: dict[str, str]) -> None:
        canary = wanted.canary
        attached = [a.module_id for a in wanted.attachments]
        chosen = attached if canary is None else [m.module_id for m in canary.canary.members]
        with ui.element("div").classes("tools"):
            self._modules = ui.select(options, label="Modules of the canary", multiple=True, value=chosen)
            self._modules.props('outlined dense options-dense use-chips aria-label="Modules of the canary"')
            self._modules.classes("grow")
        with ui.element("div").classes("tools"):
            share = 10.0 if canary is None else round(100 * canary.share, 4)
            self._share = ui.number("Share in percent", value=share, min=0, max=100)
            self._share.props('outlined dense aria-label="Share in percent"').classes("grow")
            self._mode = ui.select(
                _MODES, label="Mode of the canary", value="canary" if canary is None else canary.mode
            )
            self._mode.props('outlined dense options-dense aria-label="Mode of the canary"').classes("grow")

    async def _put(self) -> None:
        share: Any = self._share.value
        if share is None or not 0 <= share <= 100:
            tell(Invalid.at("/share", "out_of_range", f"expected a share from 0 to 100 percent, got {share}"))
            return
        modules, mode = list(self._modules.value), str(self._mode.value)
        await self._change(lambda s: canaries.put(s, self._name, modules, mode=mode, share=share / 100))


def described(row: CanaryRevisionRow | None) -> Markup:
    """The modules, mode, share and counts of a canary; None: a sentence that there is none."""
    if row is None:
        return Markup('<p class="faint">No canary runs: the attached modules answer all requests.</p>')
    counts = CanaryCounts.of(row.canary)
    names = [name for member in row.canary.members for name in member.module.classes]
    rows: dict[str, object] = {
        "State": Markup("{} {:.4g} % of the requests").format(badge(row.mode), 100 * row.share),
        "Its classes": chips(names, _FEW) if names else Markup('<span class="faint">those of the target alone</span>'),
        "Requests": f"{counts.main_requests:,} by the attached modules, {counts.canary_requests:,} by the canary",
        "Predicted class": _agreement(counts),
    }
    if counts.mean_logit_difference is not None:
        rows["Old logits differ by"] = f"{counts.mean_logit_difference:.3g}, mean of the largest difference of an image"
    if counts.dropped or counts.failed:
        rows["Not compared"] = f"{counts.dropped:,} requests while serving was busy, {counts.failed:,} failed"
    return facts(rows)


def _agreement(counts: CanaryCounts) -> str:
    compared = counts.agreed + counts.differed
    if not compared:
        return "no image compared yet"
    share = counts.differed / compared
    return f"{counts.agreed:,} images agree, {counts.differed:,} differ ({percent(share)})"


def _label(module: ModuleRow) -> str:
    more = "" if len(module.classes) <= _FEW else ", …"
    return f"{', '.join(module.classes[:_FEW])}{more} · …{module.id[-6:]}"
