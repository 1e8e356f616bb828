"""Promises of the demo about its job, and the table that the demo prints.

Another processor or another number of threads changes the last bits of a network, and training amplifies the
difference. Every bound on an accuracy is therefore far from the worst result of `python -m benchmarks.demo`, and two
methods that both come near the ceiling count as equal. Promises about bits hold exactly.
"""

from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from pnc_core.analysis.evaluation import Evaluation, direct_ensembles, evaluate, predict
from pnc_core.config import NetworkSpec
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.module.composed import attach, detach

LEAST_AVERAGE, LEAST_LOCALITY = 0.75, 0.75
LEAST_GAIN = 0.03
"""Least difference of average accuracy between the composed network and the better direct ensemble."""
CEILING = 0.97
"""If both are above this accuracy, a gain is impossible. The composed network may then be lower by `LEAST_GAIN`."""
LARGEST_FULL, LARGEST_THIN = 0.6, 0.3
"""Largest sizes of the bundles as shares of the source's file."""
ROUNDING = 1e-3
"""Largest difference between served and local logits, as a share of the largest logit. Serving runs a folded copy,
whose own tolerance is a tenth of this."""


def figures_of(judged: Evaluation) -> dict[str, float]:
    """Rounded figures of the composed network."""
    return {
        "target_old": round(judged.target_old, 4),
        "composed_old": round(judged.old, 4),
        "composed_new": round(judged.new, 4),
        "composed_avg": round(judged.average, 4),
        "composed_all": round(judged.all, 4),
        "locality": round(judged.locality, 4),
    }


def compare(
    target: tuple[nn.Module, NetworkSpec],
    source: tuple[nn.Module, NetworkSpec],
    cloned: tuple[str, ...],
    images: ImageSet,
    bundles: dict[str, Path],
    served: torch.Tensor,
) -> dict[str, Any]:
    """Attach both bundles without a server, and evaluate the direct ensembles.

    Args:
        target: Network and spec; unchanged.
        source: Network and spec; unchanged.
        cloned: The cloned classes.
        images: Test images.
        bundles: Files of the payloads `full` and `thin`.
        served: Logits of the service for the images of old and cloned classes, float64 (N, classes).

    Returns:
        Figures by name, as JSON values.
    """
    digest = fingerprint(target[0])
    full = attach(target[0], bundles["full"])
    thin = attach(target[0], bundles["thin"], source=source[0])
    local = predict(full, target[1], images.only(full.classes).images)
    local_thin = predict(thin, target[1], images.only(full.classes).images)
    average = evaluate(full, images).average
    untouched = detach(full) is target[0] and fingerprint(target[0]) == digest
    ensembles = direct_ensembles(target, source, cloned, images)
    best = max(ensembles.values(), key=lambda ensemble: ensemble.average)
    return {
        "local_avg": round(average, 4),
        "local_logit_difference": float((local - served).abs().max() / local.abs().max()),
        "thin_is_full": torch.equal(local, local_thin),
        "local_target_untouched": untouched,
        "ensemble_old": round(best.old, 4),
        "ensemble_new": round(best.new, 4),
        "ensemble_avg": round(best.average, 4),
        "ensemble_all": round(best.all, 4),
        "ensemble_locality": round(best.locality, 4),
        "ensemble_raw_avg": round(ensembles["raw"].average, 4),
        "ensemble_softmax_avg": round(ensembles["softmax"].average, 4),
    }


def broken(result: dict[str, Any]) -> list[str]:
    """The promises that a run has not kept."""
    composed, ensemble, source = result["composed_avg"], result["ensemble_avg"], result["source_bytes"]
    tied = min(composed, ensemble) >= CEILING and composed - ensemble > -LEAST_GAIN
    promises = {
        f"composed accuracy is at least {LEAST_AVERAGE}": composed >= LEAST_AVERAGE,
        f"composed is above the better direct ensemble by more than {LEAST_GAIN}, or both are above {CEILING}": (
            composed - ensemble > LEAST_GAIN or tied
        ),
        f"the target's answer stays for {LEAST_LOCALITY} of the old images": result["locality"] >= LEAST_LOCALITY,
        "the target is restored bit for bit": result["restored"],
        "without a server the bundle gives the same logits": result["local_logit_difference"] <= ROUNDING,
        "thin and full bundle give the same answers": result["thin_is_full"],
        "attaching without a server leaves the target alone": result["local_target_untouched"],
        f"the full bundle is smaller than {LARGEST_FULL} of the source": result["full_bytes"] < LARGEST_FULL * source,
        f"the thin bundle is smaller than {LARGEST_THIN} of the source": result["thin_bytes"] < LARGEST_THIN * source,
    }
    return [promise for promise, kept in promises.items() if not kept]


def table(result: dict[str, Any]) -> Table:
    """Table with the accuracies of the target alone, the better direct ensemble and the composed network."""
    shown = Table(title="Accuracy on test images, all classes competing", caption=_caption(result), min_width=78)
    for column in ("", "old (0-4)", "new (7-9)", "average", "all images", "locality"):
        shown.add_column(column, justify="right" if column else "left")
    rows = (
        ("target alone", result["target_old"], 0.0, result["target_old"] / 2, result["target_all"], 1.0),
        ("direct ensemble", *(result[f"ensemble_{side}"] for side in ("old", "new", "avg", "all", "locality"))),
        ("composed", *(result[f"composed_{side}"] for side in ("old", "new", "avg", "all")), result["locality"]),
    )
    for name, *figures in rows:
        shown.add_row(name, *(f"{figure:.4f}" for figure in figures))
    return shown


def _caption(result: dict[str, Any]) -> str:
    source = result["source_bytes"]
    return (
        f"position {result['position']}, {result['head']} head, {result['kept_fraction']:.2f} of the tail kept; "
        f"source {source:,} B, full bundle {result['full_bytes'] / source:.0%}, "
        f"thin {result['thin_bytes'] / source:.0%}; job {result['seconds_job']} s; "
        f"target restored bit for bit: {'yes' if result['restored'] else 'NO'}"
    )
