"""The verdict on a module, as commands show it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pnc_client.schemas.jobs import Advice

_NAMES = {
    "module": "with the module",
    "plain": "no composition",
    "ensemble": "both networks",
    "probe": "linear probe",
    "alone": "target alone",
}
_OF_SEVERAL = {"module": "with it", "ensemble": "all networks"}
"""Names of the figures of a composition where they differ."""


def described(verdict: Mapping[str, Any] | None) -> dict[str, object]:
    """Names and values for `app.cli.screen.record`; empty without a verdict.

    Args:
        verdict: As the manifest of a module or of a composition holds it.
    """
    if verdict is None:
        return {}
    figures: Mapping[str, Mapping[str, Any]] = verdict["figures"]
    lines: dict[str, object] = {"verdict": verdict["text"]}
    names = _NAMES | (_OF_SEVERAL if "plain" in figures else {})
    lines |= {name: _figure(figures[key]) for key, name in names.items() if key in figures}
    return {**lines, "measured on": f"{verdict['images']:,} images, {verdict['fitting']}"}


def advised(advice: Mapping[str, Any]) -> dict[str, object]:
    """Advice as names and values for `app.cli.screen.record`.

    Args:
        advice: The fields of `pnc_core.method.advice.Advice`.
    """
    curve = [
        f"{point['per_class']:.3g} images a class: {100 * point['figure']['average']:.1f} % "
        f"({100 * point['figure']['low']:.1f} to {100 * point['figure']['high']:.1f})"
        for point in advice["curve"]
    ]
    many, accuracy = advice["more"]
    return {
        **described(advice["verdict"]),
        "learning curve": "; ".join(curve),
        "more images": f"about {100 * accuracy:.0f} % with {many:.3g} a class",
        "time": f"about {max(1.0, advice['seconds']):.0f} s",
    }


def forecast(advice: "Advice") -> dict[str, object]:
    """A service's forecast as names and values for `app.cli.screen.record`."""
    sides = ", ".join(
        f"{name} {100 * share:.1f}" for name, share in (("old", advice.old), ("new", advice.new)) if share is not None
    )
    interval = f"{100 * advice.low:.1f} to {100 * advice.high:.1f}"
    return {
        "expected accuracy": f"{100 * advice.accuracy:.1f} % ({interval}; {sides}), from {advice.images:,} images",
        "beside others": advice.text,
        "more images": f"about {100 * advice.more_accuracy:.0f} % with {advice.more_per_class:.3g} a class",
        "time": f"about {max(1.0, advice.seconds):.0f} s",
    }


def _figure(figure: Mapping[str, Any]) -> str:
    sides = ", ".join(f"{side} {100 * figure[side]:.1f}" for side in ("old", "new") if figure[side] is not None)
    interval = f"{100 * figure['low']:.1f} to {100 * figure['high']:.1f}"
    return f"{100 * figure['average']:.1f} % ({interval}; {sides}), {figure['numbers']:,} numbers"
