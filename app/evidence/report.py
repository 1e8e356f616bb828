"""What was found, for people: pictures, plain numbers for JSON, and a table."""

import math
from pathlib import Path
from typing import Any

from rich.table import Table

from app import plots


def draw(found: dict[str, Any], out: Path) -> list[Path]:
    """The pictures of an `evidence.json`, as PNG and SVG; those without data are left out."""
    figures = {"similarity": plots.similarity_matrix(found["similarity"])}
    if found["masking"]:
        figures["masking"] = plots.masking_curve(found["masking"])
    if found["positions"]:
        figures["positions"] = plots.position_curve(found["positions"], found["sizes"]["source"])
    ensembles = {f"direct ensemble ({name})": row for name, row in found["direct_ensemble"].items()}
    methods = {**ensembles, "composed": found["composed"], "oracle routing": found["oracle"]}
    rows = [{"method": name, **row} for name, row in methods.items()]
    figures["accuracy"] = plots.accuracy_bars(rows, highlight=["composed"])
    return [path for name, figure in sorted(figures.items()) for path in plots.save(figure, out / name)]


def plain(value: Any) -> Any:
    """Rounded to six significant digits, so that a small p-value stays one, and null for what is not a number."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def summary(found: dict[str, Any]) -> Table:
    """The figures to look at first."""
    table = Table(title="Evidence", show_header=False, min_width=60)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    composed, alike = found["composed"], found["similarity"]
    rows = {
        "cut from this source": _proof(found["verified"]),
        "target restored bit for bit": "yes" if found["restored"]["bit_for_bit"] else "NO",
        "old classes": f"{composed['old']:.4f}",
        "cloned classes": f"{composed['new']:.4f}",
        "average": f"{composed['average']:.4f}",
        "average with oracle routing": f"{found['oracle']['average']:.4f}",
        "locality": f"{composed['locality']:.4f}",
        "transferability": f"{alike['transferability']:.4f}",
    }
    if alike["explicitness"] is not None:
        rows["explicitness (of the source itself)"] = f"{alike['explicitness']:.4f} ({alike['ceiling']:.4f})"
    for name, value in (rows | _left_out(found["residue"])).items():
        table.add_row(name, value)
    return table


def _left_out(residue: dict[str, Any] | None) -> dict[str, str]:
    """What a probe reads of classes that were not cloned."""
    if residue is None:
        return {}
    probed = {"target alone": "target", "target and module": "together", "module alone": "module"}
    probed |= {"its channels alone": "slices", "as many at random": "random", "whole source": "source"}
    rows = {f"classes left out, {name}": _read(residue[key]) for name, key in probed.items()}
    rows["added by the module"] = f"{residue['added']:+.4f} (p = {residue['p_added']:.2g})"
    return {"classes left out, guessing": f"{residue['chance']:.4f}", **rows}


def _read(reading: dict[str, float]) -> str:
    return f"{reading['accuracy']:.4f} ± {reading['spread']:.4f}"


def _proof(verified: dict[str, int]) -> str:
    if verified["tensors"]:
        return f"{verified['numbers']:,} numbers in {verified['tensors']} tensors equal"
    return f"fingerprint and {verified['channels']:,} channels"
