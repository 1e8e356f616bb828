"""Variants of our own method in the comparison. All use the images and the budget of the baselines."""

from dataclasses import replace
from typing import Any

from benchmarks.comparison.task import MethodOutput, Task
from pnc_core.analysis.evaluation import multiply_accumulates, predict
from pnc_core.config import CloneConfig, Position
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.module.composed import attach

BUDGET: dict[str, Any] = {
    "keep": 0.48,
    "max_size": 0.6,
    "tap_grid": 1,
    "shortlist": 1,
    "screen_images": 500,
    "keep_anyway": True,
}
"""Module, adapters and head together have at most 0.6 of the source's size; a module that is worse than a baseline is
measured, too. BUDGET and LEARNED were chosen on the development split."""
FAST: dict[str, Any] = {**BUDGET, "preset": "fast", "views": 1}
LEARNED: dict[str, Any] = {**BUDGET, "views": 6}
"""Average accuracy 80.9 %. Alternatives: taps of 2x2 cells and positions tried by training 81.3 %, in twice the time;
in addition training on labels, no gain in 3 epochs, 80.2 % after 12."""

HALF = 0.37
"""Share of the tail's parameters that remain in ResNet-20 after half of the prunable channels are removed."""
COUNTED = 10
"""Every 10th test image is used to count multiply-accumulates."""

VARIANTS: dict[str, dict[str, Any]] = {
    "pnc_fast": FAST,
    "pnc_joint": LEARNED,
    "pnc_whole": {**LEARNED, "keep": 1.0, "max_size": 2.0},
    "pnc_half": {**LEARNED, "keep": HALF, "max_size": 2.0},
    "pnc_strict": {**LEARNED, "locality": "strict"},
    "pnc_no_old": {**LEARNED, "old_images": False},
    "pnc_random_mask": {**LEARNED, "localizer": "random", "masking": "scored"},
    "pnc_fixed_position": LEARNED,
}
"""`pnc_whole` and `pnc_half` have no limit of size and keep different shares of the channels. `pnc_random_mask` skips
localization. `pnc_fixed_position` skips the search for positions."""


def config_of(task: Task, method: str) -> CloneConfig:
    """The configuration of one variant."""
    suite = task.split.suite
    # Half the baselines' budget of images: each image passes two networks here, and heads are fitted separately.
    epochs = task.epochs(learned_from(task, method), 0.5)
    config = CloneConfig(
        classes=task.split.cloned,
        augment=suite.augment,  # type: ignore[arg-type]
        precision=task.precision,  # type: ignore[arg-type]
        seed=task.seed,
        epochs=epochs,
        **VARIANTS[method],
    )
    if method == "pnc_fixed_position":
        return replace(config, position=_last_pair(task))
    return config


def learned_from(task: Task, method: str) -> ImageSet:
    """The images that a variant may learn from."""
    return task.new_images if method == "pnc_no_old" else task.images


def _last_pair(task: Task) -> Position:
    """The last position but one of each network, chosen without images; behind the last one nothing is left to
    clone."""
    target, source = (trace(*network).positions for network in (task.target, task.source))
    return Position(target=target[-2].name, source=source[-2].name)


def clone_and_attach(task: Task, method: str) -> MethodOutput:
    """Clone a module, attach it, and return the logits and costs of the composed network."""
    images = learned_from(task, method)
    config = config_of(task, method)
    bundle = clone(task.target, task.source, images, config, report=lambda progress: task.report(progress.message))
    composed = attach(task.target[0], bundle)
    sizes = bundle.manifest.sizes
    return MethodOutput(
        lambda: predict(composed, task.target[1], task.test_images.images),
        numbers=sizes.module + sizes.adapter + sizes.head,
        # A locality gate skips the module for some images, so the count is a mean over test images.
        macs=multiply_accumulates(composed, task.target[1], task.test_images.images[::COUNTED]),
        images_used=len(images),
    )
