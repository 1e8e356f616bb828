"""Accuracy of a module on held-out images, compared with the target alone and with an ensemble of both networks."""

from collections.abc import Mapping

from markupsafe import Markup

from app.modules.tables import ModuleRow
from app.web.drawing import bars
from app.web.html import count, percent, section, table

_SIDES = {"old": "target's classes", "new": "cloned classes", "average": "average"}
_HINT = "Accuracy on the job's held-out images, over all classes of the target and the module"
_NOTE = (
    "The module's accuracies were measured before its head was also fitted on these images. Both whole networks: the "
    "class with the largest logit of both, or with the largest probability, whichever is more accurate. Size: "
    "parameters in addition to those of the target."
)


def accuracy_section(module: ModuleRow, title: str, end: Markup | str = "") -> Markup:
    """A section with the module's accuracies, and with those of its baselines if the job measured them.

    Args:
        module: The module.
        title: Title of the section.
        end: Content below the accuracies.
    """
    shares: Mapping[str, float] = module.manifest.get("validation", {})
    drawn = bars([(_SIDES.get(side, side), share, percent(share)) for side, share in shares.items()], _HINT)
    baselines: Mapping[str, Mapping[str, float]] = (module.evidence or {}).get("worth", {})
    if not baselines:
        return section(title, drawn + end, _HINT)
    sizes = dict(module.manifest.get("sizes", {}))
    whole = sizes.pop("source", None)
    added = sum(sizes.values()) if sizes else None
    rows = [
        _row("The target alone", baselines.get("alone", {}), 0),
        _row("Both whole networks", baselines.get("ensemble", {}), whole),
        _row("With the module", shares, added),
    ]
    columns = ["", "#Target's classes", "#Cloned classes", "#Average", "#Size"]
    beside = Markup('<div class="beside">{}<p class="hint">{}</p></div>').format(
        table(columns, rows, "Compared with baselines"), _NOTE
    )
    return section(title, drawn + beside + end, _HINT)


def _row(name: str, shares: Mapping[str, float], numbers: int | None) -> list[object]:
    return [name, *(percent(shares.get(side)) for side in _SIDES), count(numbers)]
