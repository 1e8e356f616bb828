"""Accuracy of a module, and the verdict: its comparison with answers that need no module, on the same images."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from app.modules.tables import ModuleRow
from app.web.drawing import bars
from app.web.html import count, percent, section, table

_SIDES = {"old": "target's classes", "new": "cloned classes", "average": "average"}
_HINT = "Accuracy over all classes of the target and the module, on images that the final head was not chosen by"
_ALTERNATIVES = {
    "alone": "The target alone",
    "ensemble": "Both whole networks",
    "probe": "A linear probe on the target",
}
_NOTES = {
    "cross-fitted": "Each image was judged by a head that was fitted on other images.",
    "held out": "The module's accuracies were measured before its head was also fitted on these images.",
}
_NOTE = (
    "Both whole networks: the class with the largest probability of both. A linear probe: a linear classifier on the "
    "target's activations, without the module. Interval: 90 %, of the average. Size: parameters in addition to "
    "those of the target."
)


def accuracy_section(module: ModuleRow, title: str, end: Markup | str = "") -> Markup:
    """A section with the module's accuracies, and with those of its alternatives if the job measured them.

    Args:
        module: The module.
        title: Title of the section.
        end: Content below the accuracies.
    """
    shares: Mapping[str, float] = module.manifest.get("validation", {})
    drawn = bars([(_SIDES.get(side, side), share, percent(share)) for side, share in shares.items()], _HINT)
    verdict: Mapping[str, Any] | None = module.manifest.get("verdict")
    if verdict is None:
        return section(title, drawn + end, _HINT)
    figures = verdict["figures"]
    rows = [
        _row(name, figures[key])
        for key, name in {**_ALTERNATIVES, "module": "With the module"}.items()
        if key in figures
    ]
    columns = ["", "#Target's classes", "#Cloned classes", "#Average", "#Interval", "#Size"]
    note = f"{_NOTES[verdict['fitting']]} {verdict['images']:,} images. {_NOTE}"
    beside = Markup('<p class="verdict {}">{}</p><div class="beside">{}<p class="hint">{}</p></div>').format(
        verdict["outcome"], _sentence(verdict["text"]), table(columns, rows, "Compared with alternatives"), note
    )
    return section(title, drawn + beside + end, _HINT)


def _row(name: str, figure: Mapping[str, Any]) -> list[object]:
    interval = f"{100 * figure['low']:.1f} to {100 * figure['high']:.1f}"
    return [name, *(percent(figure.get(side)) for side in _SIDES), interval, count(figure["numbers"])]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
