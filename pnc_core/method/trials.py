"""Train the best positions of the screen briefly, and drop the worse half in every round until one is left.

One trial is one position in one round. It depends only on the job and on the same position's trial of the round before,
so several processes can share the trials of a round. The positions are compared when all trials of the round are done.
Among positions whose loss is within one standard error of the best, the smaller module wins.

Source: the paper's abstract (positional search); successive halving is our own choice.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pnc_core.config import Position
from pnc_core.images import ImageSet
from pnc_core.method.checkpoints import State
from pnc_core.method.heads.choose import not_worse
from pnc_core.method.heads.fit import Accuracy, accuracy, balanced_losses, fit_head, head_logits
from pnc_core.method.heads.inputs import head_inputs_of_all, mean_by_image
from pnc_core.method.insert import Insertion, localize, module_macs, stitch_all
from pnc_core.method.job import Job, Progress
from pnc_core.method.learn import match_features
from pnc_core.method.search import SCREEN_SHARE, TRIAL_SHARE, Trial, probe_of, report_trial, trial_of

TRIAL_VIEWS = 2
"""Number of augmented views per image for comparing trials."""
_SEPARATOR = "|"
"""Names of positions do not contain this character."""


@dataclass(frozen=True)
class Step:
    """One position in one round. Its text is its name among a job's steps."""

    round: int
    epochs: int
    """Passes over the probe set in this round."""
    position: Position

    def __str__(self) -> str:
        parts = ("trial", self.round, self.epochs, self.position.target, self.position.source)
        return _SEPARATOR.join(map(str, parts))

    @classmethod
    def parse(cls, text: str) -> "Step":
        """The step with this text."""
        _, number, epochs, target, source = text.split(_SEPARATOR)
        return cls(int(number), int(epochs), Position(target=target, source=source))

    @property
    def before(self) -> "Step":
        """The step of the same position in the round before."""
        return Step(self.round - 1, self.epochs, self.position)


@dataclass(frozen=True, eq=False)
class Ranked:
    """A trial and its losses, for comparison with other trials."""

    position: Position
    trial: Trial
    losses: Tensor
    """Balanced cross-entropy of every held-out image, averaged over its views."""


def halve(job: Job, positions: list[Position]) -> tuple[Position, int]:
    """Localize and train the positions, and drop the worse half in every round (successive halving).

    Returns:
        The best position, and the number of rounds.
    """
    if len(positions) == 1:
        return positions[0], 0
    runner = TrialRunner(job)
    plan = rounds(len(positions), job.config.epochs if job.config.preset == "joint" else 0)
    for number, (count, epochs) in enumerate(plan, 1):
        span = SCREEN_SHARE + TRIAL_SHARE * (number - 1) / len(plan), TRIAL_SHARE / len(plan)
        runner.done = span[0]
        steps = [Step(number, epochs, position) for position in positions[:count]]
        ranked = []
        for index, state in enumerate(job.checkpoints.each([str(step) for step in steps], runner.work), 1):
            trial = Trial(**state.facts["trial"])
            report_trial(job, trial, span[0] + span[1] * index / count)
            ranked.append(Ranked(steps[index - 1].position, trial, state.tensors["losses"]))
        positions = [row.position for row in best_first(ranked)]
    return positions[0], len(plan)


def rounds(count: int, epochs: int) -> list[tuple[int, int]]:
    """(number of positions, epochs on the probe set) of every round; with 0 epochs one round decides."""
    if not epochs:
        return [(count, 0)]
    sizes = [count]
    while sizes[-1] > 2:
        sizes.append((sizes[-1] + 1) // 2)
    return [(size, max(1, epochs // (2 * len(sizes)))) for size in sizes]


def best_first(ranked: list[Ranked]) -> list[Ranked]:
    """Trials in the order of preference.

    First the trials that are not worse than the best (`not_worse`), by size of the module; then the others, by loss.
    """
    by_loss = sorted(ranked, key=lambda row: float(row.losses.mean()))
    equals = [row for row in by_loss if not_worse(row.losses, by_loss[0].losses)]
    rest = [row for row in by_loss if row not in equals]
    return sorted(equals, key=lambda row: row.trial.parameters) + rest


class TrialRunner:
    """Runs the trials of a job, and keeps their insertions for the next round.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._probe = job, probe_of(job)
        self.done = SCREEN_SHARE
        """Share of the whole job that is done, for progress reports."""
        self._insertions: dict[Position, Insertion] = {}

    def work(self, texts: Sequence[str]) -> list[State]:
        """Train and judge the positions of several steps of one round; passes that they share run once."""
        with self._job.watch("trials"):
            return self._work(texts)

    def _work(self, texts: Sequence[str]) -> list[State]:
        steps = [Step.parse(text) for text in texts]
        started = time.monotonic()
        self._stitch([step.position for step in steps])
        shared = time.monotonic() - started
        seconds = [self._train(step) for step in steps]
        started = time.monotonic()
        running = [self._insertions[step.position] for step in steps]
        judged = judge(self._job, running, self._probe)
        shared = (shared + time.monotonic() - started) / len(steps)
        return [
            _state(self._job, step, insertion, own + shared, *verdict)
            for step, insertion, own, verdict in zip(steps, running, seconds, judged, strict=True)
        ]

    def _stitch(self, positions: list[Position]) -> None:
        missing = [position for position in positions if position not in self._insertions]
        if missing:
            for position, found in stitch_all(self._job, missing, self._probe).items():
                assert isinstance(found, Insertion)  # the screen has dropped positions that cannot be stitched
                self._insertions[position] = localize(self._job, found)

    def _train(self, step: Step) -> float:
        """Continue from the state of the round before, which another process may have trained; returns seconds."""
        started, job, insertion = time.monotonic(), self._job, self._insertions[step.position]
        before = job.checkpoints.load(str(step.before)) if step.round > 1 else None
        if before is not None:
            with torch.no_grad():
                for number, parameter in enumerate(insertion.parameters()):
                    parameter.copy_(before.tensors[f"learned.{number}"])

        def report(share: float, loss: float) -> None:
            job.report(Progress("inserting", self.done, f"{step.position}: feature mismatch {loss:.3f}"))

        match_features(job, insertion, step.epochs, f"round {step.round}", report, self._probe)
        return time.monotonic() - started


def judge(job: Job, running: list[Insertion], probe: ImageSet) -> list[tuple[Accuracy, Tensor]]:
    """Joint accuracy of a router on globally pooled taps, and its balanced losses on the held-out images."""
    validation = job.validation.sample(job.config.screen_images, job.generator("judge"))
    found = []
    train_rows, held_rows = (head_inputs_of_all(job, running, i, (1,), TRIAL_VIEWS) for i in (probe, validation))
    for (train,), (held,) in zip(train_rows, held_rows, strict=True):
        head = fit_head("router", train)
        score = accuracy(head_logits(head, held), held.labels, job.old_classes)
        losses = balanced_losses(head, held)
        found.append((score, mean_by_image(job, losses, len(validation), TRIAL_VIEWS)))
    return found


def _state(job: Job, step: Step, insertion: Insertion, seconds: float, score: Accuracy, losses: Tensor) -> State:
    macs = module_macs(job, insertion)
    trial = trial_of(insertion.position, step.round, score, insertion.parameter_count, macs, seconds)
    learned = {f"learned.{i}": p.detach().clone() for i, p in enumerate(insertion.parameters())}
    return State({"trial": asdict(trial)}, {"losses": losses, **learned})
