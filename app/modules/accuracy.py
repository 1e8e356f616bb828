"""What a module is worth, beside the target alone and beside running both whole networks."""

from collections.abc import Mapping

from markupsafe import Markup

from app.modules.tables import ModuleRow
from app.web.drawing import bars
from app.web.html import count, percent, section, table

_SIDES = {"old": "target's classes", "new": "cloned classes", "average": "average"}
_HINT = "Share of images that the job held out that is named right, all classes competing"
_NOTE = (
    "The module's figures are from before its head was fitted on these images as well. Both whole networks: the larger "
    "logit or probability wins, whichever is better. Size: numbers beside those of the target."
)


def worth(module: ModuleRow, title: str, end: Markup | str = "") -> Markup:
    """The module's accuracies as bars, and a table with its rivals where the job has judged them.

    Args:
        module: What is shown.
        title: Of the section.
        end: What comes below.
    """
    shares: Mapping[str, float] = module.manifest.get("validation", {})
    drawn = bars([(_SIDES.get(side, side), share, percent(share)) for side, share in shares.items()], _HINT)
    rivals: Mapping[str, Mapping[str, float]] = (module.evidence or {}).get("worth", {})
    if not rivals:
        return section(title, drawn + end, _HINT)
    sizes = dict(module.manifest.get("sizes", {}))
    whole = sizes.pop("source", None)
    added = sum(sizes.values()) if sizes else None
    rows = [
        _row("The target alone", rivals.get("alone", {}), 0),
        _row("Both whole networks", rivals.get("ensemble", {}), whole),
        _row("With the module", shares, added),
    ]
    columns = ["", "#Target's classes", "#Cloned classes", "#Average", "#Size"]
    beside = Markup('<div class="beside">{}<p class="hint">{}</p></div>').format(
        table(columns, rows, "Beside its rivals"), _NOTE
    )
    return section(title, drawn + beside + end, _HINT)


def _row(name: str, shares: Mapping[str, float], numbers: int | None) -> list[object]:
    return [name, *(percent(shares.get(side)) for side in _SIDES), count(numbers)]
