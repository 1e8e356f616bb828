"""Evidence for people: plots, rounded numbers for JSON, and a summary table."""

import math
from pathlib import Path
from typing import Any

from rich.table import Table

from app import plots


def draw(found: dict[str, Any], out: Path) -> list[Path]:
    """Draw the plots of an `evidence.json` as PNG and SVG; a plot without data is omitted. Returns the files."""
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
    """The value with floats rounded to six significant digits; NaN and infinity become None.

    Significant digits keep a small p-value from becoming 0.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def summary(found: dict[str, Any]) -> Table:
    """The most important numbers as a table."""
    table = Table(title="Evidence", show_header=False, min_width=60)
    table.add_column(overflow="fold")
    table.add_column(justify="right")
    composed, similarity = found["composed"], found["similarity"]
    rows = {
        "cut from this source": _proof(found["verified"]),
        "target restored bit for bit": "yes" if found["restored"]["bit_for_bit"] else "NO",
        "old classes": f"{composed['old']:.4f}",
        "cloned classes": f"{composed['new']:.4f}",
        "average": f"{composed['average']:.4f}",
        "average with oracle routing": f"{found['oracle']['average']:.4f}",
        "locality": f"{composed['locality']:.4f}",
        "transferability": f"{similarity['transferability']:.4f}",
    }
    if similarity["explicitness"] is not None:
        rows["explicitness (of the source itself)"] = f"{similarity['explicitness']:.4f} ({similarity['ceiling']:.4f})"
    for name, value in (rows | _left_out(found["residue"])).items():
        table.add_row(name, value)
    return table


def _left_out(residue: dict[str, Any] | None) -> dict[str, str]:
    """Accuracies of linear probes for the classes that were not cloned."""
    if residue is None:
        return {}
    probes = {"target alone": "target", "target and module": "together", "module alone": "module"}
    probes |= {"kept channels alone": "slices", "random channels": "random", "whole source": "source"}
    rows = {f"classes left out, {name}": _probe(residue[key]) for name, key in probes.items()}
    rows["added by the module"] = f"{residue['added']:+.4f} (p = {residue['p_added']:.2g})"
    return {"classes left out, chance": f"{residue['chance']:.4f}", **rows}


def _probe(result: dict[str, float]) -> str:
    return f"{result['accuracy']:.4f} ± {result['spread']:.4f}"


def _proof(verified: dict[str, int]) -> str:
    if verified["tensors"]:
        return f"{verified['numbers']:,} numbers in {verified['tensors']} tensors equal"
    return f"fingerprint and {verified['channels']:,} channels"
