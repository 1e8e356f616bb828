"""Comparison of the two sets of modules of a deployment, after the answer.

One thread runs the other set on the images of an answered request. It runs one image at a time and only while no
request waits, so that a request competes with one image at most. A bounded queue holds the answered requests; what it
cannot take is dropped and counted. Errors are counted, and reach no answer.
"""

import logging
import queue
import threading
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from app.process.troubles import Complaints
from app.serving.canary.assigning import Assignment
from app.serving.canary.counts import Counts
from app.serving.engine import metrics
from app.serving.engine.engine import Engine
from app.serving.loader.snapshot import Choice
from pnc_core.images import Views

MOST_WAITING = 64
"""Most answered requests that wait for their comparison."""
MOST_IMAGES = 32
"""Images of a request that are compared, the first ones. Limits memory and the time of one comparison."""
IDLE_SECONDS = 1.0
"""A comparison that finds no moment without a waiting request for this time is dropped."""
LOOK_SECONDS = 0.001
CLOSE_SECONDS = 5.0
"""Longest wait for the running comparison at the end of the process."""
_complain = Complaints(logging.getLogger(__name__))


@dataclass(frozen=True)
class Sample:
    """An answered request."""

    canary: str
    answered: Choice
    other: Choice
    images: Views
    logits: Tensor
    """The answer, float32 (N, classes)."""


class _Busy(Exception):
    """There was no moment without a waiting request."""


class Comparisons:
    """Counts requests of deployments with a canary, and compares the two sets of modules.

    Args:
        engine: Runs the other set.
        counts: Receives the counts.
    """

    def __init__(self, engine: Engine, counts: Counts) -> None:
        self._engine, self._counts = engine, counts
        self._waiting: queue.Queue[Sample] = queue.Queue(MOST_WAITING)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="comparisons", daemon=True)

    def start(self) -> None:
        """Start the thread that compares."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; waiting requests are not compared."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def note(self, assignment: Assignment, images: Tensor | Views, logits: Tensor) -> None:
        """Count an answered request, and queue its comparison if there is one. Never waits.

        Args:
            assignment: The set that answered, and the other one.
            images: Images of the request, as for `Engine.ask`.
            logits: The answer, float32 (N, classes).
        """
        if assignment.canary is None:
            return
        choice = assignment.choice
        self._counts.add(assignment.canary, **{f"{choice.module_set}_requests": 1})
        metrics.CANARY_REQUESTS.labels(choice.snapshot.deployment, choice.module_set).inc()
        if assignment.other is None:
            return
        few = Views.of(images)
        if len(few) > MOST_IMAGES:  # a copy, so that the other images are freed
            few, logits = few[:MOST_IMAGES].map(torch.clone), logits[:MOST_IMAGES].clone()
        sample = Sample(assignment.canary, choice, assignment.other, few, logits)
        try:
            self._waiting.put_nowait(sample)
        except queue.Full:
            self._missed(sample, "dropped")

    def _missed(self, sample: Sample, outcome: str) -> None:
        self._counts.add(sample.canary, **{outcome: 1})
        metrics.CANARY_COMPARISONS.labels(sample.answered.snapshot.deployment, outcome).inc()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                sample = self._waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            try:
                self._compare(sample)
            except _Busy:
                self._missed(sample, "dropped")
            except Exception as error:
                self._missed(sample, "failed")
                _complain(f"{sample.answered.snapshot.deployment}: cannot compare with the canary", error)

    def _compare(self, sample: Sample) -> None:
        """Run the other set, and count how both sets' answers compare."""
        others = torch.cat([self._run(sample.other, sample.images[i : i + 1]) for i in range(len(sample.images))])
        if not bool(torch.isfinite(others).all()):
            raise ValueError("expected finite logits of the other set of modules, got inf or nan")
        differences = largest_differences(sample, others)
        agreed = sum(
            sample.answered.classes[mine] == sample.other.classes[its]
            for mine, its in zip(sample.logits.argmax(1).tolist(), others.argmax(1).tolist(), strict=True)
        )
        differed = len(others) - agreed
        total = float(differences.sum())
        self._counts.add(sample.canary, agreed=agreed, differed=differed, logit_difference=total)
        deployment = sample.answered.snapshot.deployment
        metrics.CANARY_COMPARISONS.labels(deployment, "agreed").inc(agreed)
        metrics.CANARY_COMPARISONS.labels(deployment, "differed").inc(differed)
        for difference in differences.tolist():
            metrics.CANARY_LOGIT_DIFFERENCE.labels(deployment).observe(difference)

    def _run(self, choice: Choice, image: Views) -> Tensor:
        until = time.monotonic() + IDLE_SECONDS
        while not self._engine.is_idle:
            if time.monotonic() > until or self._closing.is_set():
                raise _Busy
            time.sleep(LOOK_SECONDS)
        return self._engine.answer_beside(choice.program, image)


def largest_differences(sample: Sample, others: Tensor) -> Tensor:
    """Largest absolute difference of a logit of the target's classes, float32 (N,)."""
    old = len(sample.answered.snapshot.spec.classes)
    return (sample.logits[:, :old] - others[:, :old]).abs().amax(1)
