"""How jobs and modules look in a notebook: small HTML cards, drawn from plain values.

Names come from people and are text here, never HTML.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pnc_client.trials import newest

Record = Mapping[str, Any]
WIDTH, HEIGHT, MARGIN = 420, 200, 44
"""Pixels of the curve, and of the room for its labels."""
SCREENED, TRAINED, BEST = "#0072B2", "#0072B2", "#D55E00"
"""Told apart by shape, too: hollow circle, filled square, star."""
_CARD = "font: 14px/1.5 system-ui, sans-serif; border: 1px solid #8886; border-radius: 8px; padding: 12px 16px"
_STAR = "★"


def job_card(job: Record, trials: Sequence[Record]) -> str:
    """A job's state and the curve of the positions that it has tried.

    Args:
        job: Fields of a `Job`.
        trials: Fields of its trials; none: no curve.
    """
    config = job["config"]
    rows = {
        "state": f"{job['state']}" + (f", {job['stage']}" if job["stage"] and not job["finished_at"] else ""),
        "from → into": f"{job['source']} → {job['target']}",
        "classes": ", ".join(config["classes"]),
        "done": f"{job['progress']:.0%}",
        "module": job["module"] or "none yet",
    }
    if job["problem"]:
        rows["problem"] = job["problem"].get("detail", "")
    return _card(f"Job {job['id']}", rows, curve(trials) if trials else "")


def module_card(module: Record, manifest: Record | None) -> str:
    """What a module is made of.

    Args:
        module: Fields of a `Module`.
        manifest: What its bundle says about itself, if it is at hand.
    """
    rows = {
        "from → into": f"{module['source']} → {module['target']}",
        "classes": ", ".join(module["classes"]),
        "bundles": ", ".join(f"{b['payload']} {b['bytes']:,} B" for b in module["bundles"]),
    }
    manifest = manifest or {}
    if "position" in manifest:
        rows["position"] = "{target} → {source}".format(**manifest["position"])
    if "kept_fraction" in manifest:
        rows["kept"] = f"{manifest['kept_fraction']:.0%} of the source's tail"
    if manifest.get("validation"):
        rows["held out"] = ", ".join(f"{side} {share:.1%}" for side, share in manifest["validation"].items())
    return _card(f"Module {module['id']}", rows, "")


def curve(trials: Sequence[Record]) -> str:
    """Size and score of every trial, the newest of each round, as an SVG picture; the best one is a star."""
    trials = newest(trials, lambda trial, name: trial.get(name))
    positions = {(trial["target_position"], trial["source_position"]) for trial in trials}
    sizes = [trial["parameters"] or 0 for trial in trials]
    across, up = _scale(sizes, MARGIN, WIDTH - 12), _scale([t["score"] for t in trials], HEIGHT - MARGIN, 14)
    best = max(trials, key=lambda trial: (trial["round"], trial["score"]))
    marks = [_mark(t, across(size), up(t["score"]), t is best) for t, size in zip(trials, sizes, strict=True)]
    low, high = min(t["score"] for t in trials), max(t["score"] for t in trials)
    labels = [
        _label(MARGIN, HEIGHT - 8, "start", f"{min(sizes):,}"),
        _label(WIDTH - 12, HEIGHT - 8, "end", f"{max(sizes):,} numbers"),
        _label(MARGIN - 6, up(high) + 4, "end", f"{high:.2f}"),
        _label(MARGIN - 6, up(low) + 4, "end", f"{low:.2f}" if high > low else ""),
    ]
    title = f"{len(positions)} positions tried; best score {best['score']:.3f}"
    frame = f'<path d="M{MARGIN} 8V{HEIGHT - 30}H{WIDTH - 8}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'style="max-width: 100%"><title>{escape(title)}</title>{frame}{"".join(marks)}{"".join(labels)}</svg>'
    )


def _card(title: str, rows: Mapping[str, str], picture: str) -> str:
    cells = "".join(
        f'<tr><th style="text-align: left; padding: 0 16px 0 0">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return f'<div style="{_CARD}"><strong>{escape(title)}</strong><table>{cells}</table>{picture}</div>'


def _scale(values: Sequence[float], start: float, end: float) -> Any:
    """From values to pixels; a single value lies in the middle."""
    low, high = min(values), max(values)
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _mark(trial: Record, x: float, y: float, best: bool) -> str:
    name = f"{trial['target_position']} → {trial['source_position']}: {trial['score']:.3f}"
    title = f"<title>{escape(name)}</title>"
    if best:
        return (
            f'<text x="{x:.1f}" y="{y + 7:.1f}" font-size="20" text-anchor="middle" fill="{BEST}">{_STAR}{title}</text>'
        )
    if trial["round"]:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{TRAINED}">{title}</rect>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="{SCREENED}" stroke-width="2">{title}</circle>'


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="11" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'
    )
