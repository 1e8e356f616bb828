"""Measure a module's alternatives on the images that judge the module: answers to the same task that need no module.

Alternatives: the target alone; both whole networks side by side, each network's softmax over all its classes; and a
linear probe, a `joint` head that reads the target's taps and no module.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from pnc_core.method.heads.choose import FittedHead, HeadChoice, choose_head
from pnc_core.method.heads.fit import HeadInputs
from pnc_core.method.heads.folds import Candidate, cross_fit
from pnc_core.method.heads.inputs import Outputs
from pnc_core.method.heads.labels import doubt_of
from pnc_core.method.job import Job, Progress
from pnc_core.module.verdict import Alternative, Answers, Fitting, Verdict, doubted, judge

PROBE_STRENGTHS = (1e-2, 1e-1, 1.0)
"""Candidate weight decays of the probe."""
LABELS_SEEN = 0.95
"""Progress of a job, 0..1, when its labels are compared with the networks' predictions."""


def probe_rows(inputs: HeadInputs, columns: Tensor) -> HeadInputs:
    """Rows of a probe: logits of new classes are 0, and features are the given columns, those of the target's taps."""
    return replace(inputs, own=torch.zeros_like(inputs.own), features=inputs.features[:, columns])


def probe_columns(seen: Sequence[int]) -> list[Tensor]:
    """Columns of all taps of the target, and of its last tap.

    Args:
        seen: Number of features of each tap of the target, in the order of the head's inputs.
    """
    whole = torch.arange(sum(seen))
    return [whole, whole[-seen[-1] :]] if len(seen) > 1 else [whole]


def held_out_probe(train: HeadInputs, validation: HeadInputs, seen: Sequence[int], folds: Tensor) -> FittedHead:
    """A probe that is fitted on `train` and chosen on `validation`; arguments as for `choose_head`.

    Args:
        train: Inputs of the module's heads on one cell; the target's features come first.
        validation: The same of the held-out images.
        seen: Number of features of each tap of the target.
        folds: As for `choose_head`.
    """
    choices = [
        HeadChoice("joint", 1, probe_rows(train, columns), probe_rows(validation, columns))
        for columns in probe_columns(seen)
    ]
    return choose_head(choices, folds, refit=False)


def cross_fitted_probe(rows: HeadInputs, seen: Sequence[int], shown: Tensor, folds: Tensor) -> FittedHead:
    """A probe that is fitted and judged by cross-validation; arguments as for `cross_fit`."""
    inputs = [probe_rows(rows, columns) for columns in probe_columns(seen)]
    candidates = [Candidate("joint", strength, 1, one) for one in inputs for strength in PROBE_STRENGTHS]
    return cross_fit(candidates, shown, folds)


def verdict_of(
    job: Job, labels: Tensor, outputs: Outputs, module: tuple[Tensor, int], probe: tuple[Tensor, int], fitting: Fitting
) -> tuple[Verdict, Tensor]:
    """Compare a module with its alternatives.

    Args:
        job: The frozen networks.
        labels: Labels of N images that judged both heads, int64 (N,): old classes first, then the cloned ones.
        outputs: Outputs of both networks for these images.
        module: Logits (N, N_old + K) of the module, by heads that have not seen the image, and the module's numbers.
        probe: The same of the probe.
        fitting: How the images were kept apart from fitting.

    Returns:
        The verdict, and the target's own predictions, int64 (N,).
    """
    old, every = outputs.old.softmax(1), outputs.every.softmax(1)
    own = every[:, list(job.cloned)]
    doubt = doubt_of(labels, old, every, job.cloned)
    if doubt is not None:
        job.report(Progress("calibrating", LABELS_SEEN, doubt.text, {"labels": asdict(doubt)}))
    never = torch.full((len(labels), len(job.cloned)), -1.0)
    source = job.source.parameter_count
    alternatives: dict[Alternative, Answers] = {
        "ensemble": _answers(job, torch.cat([old, own], 1), labels, source),
        "probe": _answers(job, probe[0], labels, probe[1]),
        "alone": _answers(job, torch.cat([old, never], 1), labels, 0),
    }
    found = judge(_answers(job, module[0], labels, module[1]), alternatives, fitting)
    if doubt is not None:
        found = doubted(found, doubt.most, doubt.text)
    return found, old.argmax(1)


def _answers(job: Job, logits: Tensor, labels: Tensor, numbers: int) -> Answers:
    right, is_new = logits.argmax(1) == labels, labels >= job.old_classes
    return Answers(right[~is_new].tolist(), right[is_new].tolist(), numbers)
