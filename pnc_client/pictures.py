"""HTML of jobs, modules and positions: cards for notebooks, and one plot for notebooks and web pages.

Names come from users, so every name is escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from pnc_client.schemas.jobs import newest_trials

Record = Mapping[str, Any]
Scale = Callable[[float], float]
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 16, 44
"""Margins of the plot for its labels; as WIDTH and HEIGHT, in units of the SVG's view box."""
_LOOK = {
    "axis": 'fill="none" stroke="#888"',
    "rule": 'stroke="#888" stroke-dasharray="3 4"',
    "joint": 'fill="none" stroke="#888" stroke-opacity=".6"',
    "screened": 'fill="none" stroke="#0072B2" stroke-width="2"',
    "trained": 'fill="#0072B2"',
    "chosen": 'fill="#D55E00" font-size="26"',
}
"""SVG attributes of each class of element. Notebooks show them; on the web pages the style sheet overrides them."""
_CARD = "font: 14px/1.5 system-ui, sans-serif; border: 1px solid #8886; border-radius: 8px; padding: 12px 16px"


def job_card(job: Record, trials: Sequence[Any]) -> str:
    """A card with a job's state and the plot of its trials.

    Args:
        job: Fields of a `Job`.
        trials: The job's trials; without any the card has no plot.
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
    plot = position_plot(newest_trials(trials, getattr), mark_best=True) if trials else ""
    return _card(f"Job {job['id']}", rows, plot)


def module_card(module: Record, manifest: Record | None) -> str:
    """A card with a module's source, target, classes, bundles and accuracies.

    Args:
        module: Fields of a `Module`.
        manifest: The manifest of its bundle; None: the card shows fewer rows.
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


def position_plot(trials: Sequence[Any], *, mark_best: bool) -> str:
    """Score over module size of every trial, as SVG; trials of one pair of positions are joined by a line.

    A hollow circle is a screened position, a square is a trained position, and a star is the best trial.

    Args:
        trials: Oldest first, at least one; each has `target_position`, `source_position`, `round`, `score` and
            `parameters`.
        mark_best: Draw the best trial of the last round as a star.
    """
    sizes, scores = [trial.parameters or 0 for trial in trials], [trial.score for trial in trials]
    across, up = _scale(sizes, LEFT, WIDTH - RIGHT), _scale(scores, HEIGHT - BOTTOM, TOP + 8)
    places = [(across(size), up(score)) for size, score in zip(sizes, scores, strict=True)]
    best = max(trials, key=lambda trial: (trial.round, trial.score))
    marks = [_mark(t, place, star=mark_best and t is best) for t, place in zip(trials, places, strict=True)]
    paths: dict[tuple[str, str], list[str]] = {}
    for trial, (x, y) in zip(trials, places, strict=True):
        paths.setdefault((trial.target_position, trial.source_position), []).append(f"{x:.1f} {y:.1f}")
    joints = [_element("path", "joint", f'd="M{" L".join(path)}"') for path in paths.values() if len(path) > 1]
    title = f"{len(paths)} positions tried, scores from {min(scores):.3f} to {best.score:.3f}"
    parts = [*_axes(sizes, scores, across, up), *joints, *marks]
    return (
        f'<svg class="curve" role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" '
        f'preserveAspectRatio="xMidYMid meet">{"".join(parts)}</svg>'
    )


def _card(title: str, rows: Mapping[str, str], picture: str) -> str:
    cells = "".join(
        f'<tr><th style="text-align: left; padding: 0 16px 0 0">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    plot = f'<div style="max-width: {WIDTH}px">{picture}</div>' if picture else ""
    return f'<div style="{_CARD}"><strong>{escape(title)}</strong><table>{cells}</table>{plot}</div>'


def _axes(sizes: Sequence[float], scores: Sequence[float], across: Scale, up: Scale) -> list[str]:
    """Both axes, with the smallest and the largest value of each as labels."""
    low, high, least, most = min(scores), max(scores), min(sizes), max(sizes)
    floor, end = HEIGHT - BOTTOM + 8, WIDTH - RIGHT
    labels = [
        _label(LEFT - 14, up(high) + 4, "end", f"{high:.2f}"),
        *([_label(LEFT - 14, up(low) + 4, "end", f"{low:.2f}")] if up(low) - up(high) > 14 else []),
        _label(across(least), floor + 18, "middle" if least == most else "start", f"{least:,}"),
        *([_label(across(most), floor + 18, "end", f"{most:,}")] if least < most else []),
        _label((LEFT + end) / 2, floor + 32, "middle", "numbers of the module"),
    ]
    rules = [_element("path", "rule", f'd="M{LEFT - 8} {up(score):.1f}H{end}"') for score in sorted({low, high})]
    return [_element("path", "axis", f'd="M{LEFT - 8} {TOP}V{floor}H{end}"'), *rules, *labels]


def _mark(trial: Any, place: tuple[float, float], *, star: bool) -> str:
    x, y = place
    kind = f"round {trial.round}" if trial.round else "screened"
    text = f"{trial.target_position} → {trial.source_position}: {trial.score:.3f}, {trial.parameters or 0:,} numbers"
    title = f"<title>{escape(text)}, {kind}</title>"
    if star:
        return _element("text", "chosen", f'x="{x:.1f}" y="{y + 9:.1f}" text-anchor="middle"', f"★{title}")
    if trial.round:
        return _element("rect", "trained", f'x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"', title)
    return _element("circle", "screened", f'cx="{x:.1f}" cy="{y:.1f}" r="4.5"', title)


def _element(tag: str, kind: str, attributes: str, content: str = "") -> str:
    return f'<{tag} class="{kind}" {_LOOK[kind]} {attributes}>{content}</{tag}>'


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="12" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'
    )


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A linear map of the values' range to coordinates; equal values map to the middle."""
    low, high = min(values), max(values)
    if low == high:
        return lambda value: (start + end) / 2
    return lambda value: start + (end - start) * (value - low) / (high - low)
