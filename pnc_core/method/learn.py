"""What insertion learns: mask, adapters and calibration by matching features, then, if wanted, the labels.

First, without labels: the tail's activations are drawn to the source's own, and its
local behaviour to the source's, while the mask is learned; then the tail is cut,
parallel adapters are put in, and matching goes on with the mask frozen. Trained by
cross-entropy on few images good features get worse, so that labels come last,
gently, and only if held-out images are better off.

Source: the paper's abstract (local performance; localization and insertion are learned
together). The phases are our own choice.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.config import Position
from pnc_core.graph.features import Reader, cut, run_part
from pnc_core.images import ImageSet
from pnc_core.method.checkpoints import State
from pnc_core.method.fit_head import balance
from pnc_core.method.insert import Insertion, bounds_of, localize, score, stitch, tap_features
from pnc_core.method.job import Batch, Job, traced_step
from pnc_core.method.lime import VARIANTS, cell_count, local_mismatch, variants
from pnc_core.method.mask import LearnedMask
from pnc_core.method.reconstruct import reconstruct_layers, reconstruct_logits
from pnc_core.module.head import Head
from pnc_core.module.tail import extract, with_parallel_adapters

MASK_SHARE = 0.4
"""Share of the epochs in which the mask is learned; in the rest it is frozen."""
LOCAL_EVERY, LOCAL_IMAGES, LOCAL_WEIGHT = 8, 4, 0.5
"""The local loss looks at a few images every few steps: each costs 32 forward passes."""
MASK_RATE = 2e-2
"""Peak learning rate of the mask's worths, which span about -1 to 1."""
HEAD_RATE, OPINION, TEMPERATURE = 5e-4, 1.0, 2.0
"""Refining: learning rate of the head; weight and temperature of the two networks' own opinions."""

Step = Callable[[float, float], None]
"""Called with (share done 0..1, loss) after every batch."""


def insert(job: Job, position: Position, probe: ImageSet, step: Step) -> Insertion:
    """The module at one position: stitched, localized and, unless the preset is `fast`, learned.

    Args:
        job: Images and frozen networks.
        position: Where.
        probe: Images that the ridge adapter is fitted on.
        step: Told about the progress of learning.
    """
    insertion = stitch(job, position, probe)
    insertion = _solved(job, insertion) if job.config.preset == "fast" else _learned(job, insertion, step)
    return reconstruct_logits(job, insertion) if job.config.reconstructs else insertion


def _solved(job: Job, insertion: Insertion) -> Insertion:
    cut_down = localize(job, insertion)
    return reconstruct_layers(job, cut_down, insertion.tail) if job.config.inner_adapters else cut_down


def _learned(job: Job, insertion: Insertion, step: Step) -> Insertion:
    config = job.config
    masking = round(MASK_SHARE * config.epochs) if config.masking == "learned" else 0
    if masking:
        insertion = learn_mask(job, insertion, masking, lambda done, loss: step(done * masking / config.epochs, loss))
    else:
        insertion = localize(job, insertion)
    if config.inner_adapters:
        insertion = replace(insertion, tail=with_parallel_adapters(insertion.tail))
    rest = config.epochs - masking
    match_features(
        job, insertion, rest, "last round", lambda done, loss: step((masking + done * rest) / config.epochs, loss)
    )
    return insertion


@traced_step("localization")
def learn_mask(job: Job, insertion: Insertion, epochs: int, step: Step) -> Insertion:
    """Learn which channels stay, together with adapter and calibration, and cut the tail down to them.

    Args:
        job: Images and frozen networks.
        insertion: Stitched, with an uncut tail; trained in place.
        epochs: Passes over the training images.
        step: Told about every batch.

    Raises:
        PositionError: no mask leaves a module that is within its bounds.
    """
    tail, hold = insertion.tail, bounds_of(job, insertion).hold
    mask = LearnedMask(tail, score(job, insertion), job.config.keep, job.importance_bias(tail), hold)
    try:
        _match(job, insertion, epochs, "mask", step, mask)
    finally:
        insertion.tail.mask(None)
    return replace(insertion, tail=extract(insertion.tail, mask.kept()))


@traced_step("adapter")
def match_features(
    job: Job, insertion: Insertion, epochs: int, round_name: str, step: Step, images: ImageSet | None = None
) -> None:
    """Train adapters and calibration until the tail's activations match the source's own.

    AdamW with a one-cycle schedule; the copied tail stays frozen, norms in eval mode.

    Args:
        job: Images and frozen networks.
        insertion: Trained in place.
        epochs: Passes over the images; with 0 nothing happens.
        round_name: Names the random order.
        step: Told about every batch.
        images: What to train on; the job's training images by default.
    """
    _match(job, insertion, epochs, round_name, step, None, images)


def _match(
    job: Job,
    insertion: Insertion,
    epochs: int,
    round_name: str,
    step: Step,
    mask: LearnedMask | None,
    images: ImageSet | None = None,
) -> None:
    images = images or job.train
    generator = job.generator("match", insertion.position, round_name)
    groups = [(insertion.parameters(), job.config.learning_rate)]
    schedule = _Schedule(groups + ([(mask.parameters(), MASK_RATE)] if mask else []), epochs, len(images), job)
    course = _Course(job, f"match {insertion.position} {round_name}", schedule, generator, mask)
    target = Reader(job.target, [insertion.position.target], logits=False)
    source = Reader(job.source, [insertion.position.source, *insertion.tail.taps])
    local_loss = _LocalLoss(job, insertion)
    for epoch in range(course.resume(), epochs):
        for batch in job.read(images, generator, target=target, source=source):
            if mask is not None:
                mask.apply()
            with job.autocast():
                loss = _mismatch(insertion, batch)
                if schedule.done % LOCAL_EVERY == 0:
                    loss = loss + LOCAL_WEIGHT * local_loss(batch)
            schedule.descend(loss, step)
        course.offer(epoch + 1)


class _Schedule:
    """AdamW with one cycle for every group of parameters."""

    def __init__(self, groups: list[tuple[list[nn.Parameter], float]], epochs: int, images: int, job: Job) -> None:
        self.done = 0
        self._parameters = [parameter for parameters, _ in groups for parameter in parameters]
        self._total = max(3, epochs * -(-images // job.config.batch_size))
        rates = [rate for _, rate in groups]
        self._optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in groups], weight_decay=1e-4
        )
        # With fewer than three steps, or fewer than two of them up, torch divides by zero.
        rise = max(0.2, 2 / self._total)
        self._cycle = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, rates, total_steps=self._total, pct_start=rise
        )

    def descend(self, loss: Tensor, step: Step) -> None:
        """One step down the gradient of `loss`."""
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._cycle.step()
        self.done += 1
        step(min(1.0, self.done / self._total), float(loss.detach()))

    def state(self) -> State:
        """Everything that the next step depends on."""
        whole = self._optimizer.state_dict()
        moments = {f"{i}.{name}": t.clone() for i, row in whole["state"].items() for name, t in row.items()}
        learned = {f"{i}.learned": p.detach().clone() for i, p in enumerate(self._parameters)}
        return State({"done": self.done, "groups": whole["param_groups"]}, {**moments, **learned})

    def restore(self, state: State) -> None:
        """Go on as if the steps up to `state` had been made here."""
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.tensors.items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = tensor
        with torch.no_grad():
            for number, parameter in enumerate(self._parameters):
                parameter.copy_(moments[number].pop("learned"))
        self._optimizer.load_state_dict({"state": moments, "param_groups": state.facts["groups"]})
        self.done = state.facts["done"]
        self._cycle.load_state_dict({"last_epoch": self.done, "_step_count": self.done + 1})


class _Course:
    """Keeps where a training loop stands after every epoch, and finds it again."""

    def __init__(
        self,
        job: Job,
        name: str,
        schedule: _Schedule,
        generator: torch.Generator,
        mask: LearnedMask | None = None,
    ) -> None:
        self._checkpoints, self._name = job.checkpoints, name
        self._schedule, self._generator, self._mask = schedule, generator, mask

    def offer(self, epochs: int) -> None:
        """Say that so many epochs are done."""
        state = self._schedule.state()
        extra = {f"open.{n}": t.clone() for n, t in self._mask.open.items()} if self._mask else {}
        tensors = {**state.tensors, **extra, "generator": self._generator.get_state()}
        self._checkpoints.offer(self._name, State({**state.facts, "epochs": epochs}, tensors))

    def resume(self) -> int:
        """Take up what an earlier run has kept; returns how many epochs are done."""
        state = self._checkpoints.load(self._name)
        if state is None:
            return 0
        tensors = dict(state.tensors)
        self._generator.set_state(tensors.pop("generator"))
        chosen = {n.removeprefix("open."): tensors.pop(n) for n in list(tensors) if n.startswith("open.")}
        self._schedule.restore(State(state.facts, tensors))
        if self._mask is not None:
            self._mask.resume(self._schedule.done, chosen)
        return int(state.facts["epochs"])


def _mismatch(insertion: Insertion, batch: Batch) -> Tensor:
    """Squared difference over the source's variance: every tap once, the last twice, the logits once."""
    logits, taps = insertion.forward(batch)
    tail = insertion.tail
    weights = [1.0] * (len(taps) - 1) + [2.0]
    loss = _relative_error(logits, batch.own)
    for name, axis, group, tap, weight in zip(tail.taps, tail.tap_axes, tail.tap_groups, taps, weights, strict=False):
        wanted = batch.source[name]
        if group is not None and tap.shape[axis] != wanted.shape[axis]:
            wanted = wanted.index_select(axis, tail.kept[group].to(wanted.device))
        loss = loss + weight * _relative_error(tap, wanted)
    return loss


def _relative_error(got: Tensor, wanted: Tensor) -> Tensor:
    wanted = wanted.float()
    return (got.float() - wanted).square().mean() / wanted.var(correction=0).clamp_min(1e-8)


class _LocalLoss:
    """How far the module's local behaviour is from the source's.

    The reference is the source's whole tail on variants of its own activation; the module sees the
    same cells of the target's activation blocked.
    """

    def __init__(self, job: Job, insertion: Insertion) -> None:
        self._insertion, self._cloned = insertion, list(job.cloned)
        self._whole = cut(job.source, insertion.position.source, ())

    def __call__(self, batch: Batch) -> Tensor:
        """A scalar; 0 where the two grids do not divide into the same cells."""
        position, adapter, few = self._insertion.position, self._insertion.adapter, slice(LOCAL_IMAGES)
        own, phi = batch.source[position.source][few], batch.phi(position, adapter)[few]
        cells = cell_count(tuple(own.shape), adapter.source_axis)
        if not adapter.local or cells != cell_count(tuple(phi.shape), adapter.target_axis):
            return torch.zeros((), device=own.device)
        with torch.no_grad():
            wanted, _ = run_part(self._whole, variants(own, axis=adapter.source_axis).flatten(0, 1))
        got, _ = self._insertion.tail.forward(adapter(variants(phi, axis=adapter.target_axis).flatten(0, 1)))
        wanted, got = (x.float().reshape(len(own), VARIANTS, -1) for x in (wanted[:, self._cloned], got))
        return local_mismatch(wanted, got, cells)


def refine(job: Job, insertion: Insertion, head: Head, grid: int, step: Step) -> Insertion:
    """Let adapters learn the labels, together with a copy of the head.

    The loss is the heads' balanced cross-entropy and, on every image, the divergence from the network
    whose class it shows, within that network's classes: what it was sure of it stays sure of.

    Args:
        job: Images and frozen networks.
        insertion: Left as it was.
        head: The head to start from, on any device; left as it was.
        grid: How many cells a side the head reads.
        step: Told about every batch.

    Returns:
        A copy that has learned; its head is to be fitted anew.
    """
    learned, head = copy.deepcopy(insertion), copy.deepcopy(head).to(job.target.device).requires_grad_(True)
    rates = [(learned.parameters(), job.config.learning_rate), (list(head.parameters()), HEAD_RATE)]
    schedule = _Schedule(rates, job.config.refine, len(job.train), job)
    generator = job.generator("refine")
    target, source = Reader(job.target, [p.name for p in job.target.positions]), Reader(job.source, [])
    course = _Course(job, "refine", schedule, generator)
    for epoch in range(course.resume(), job.config.refine):
        for batch in job.read(job.train, generator, target=target, source=source):
            with job.autocast():
                own, made = learned.forward(batch)
            features = tap_features(job, learned, batch, made, grid)
            old, new = head(batch.old, own.float(), features)
            losses = F.cross_entropy(torch.cat([old, new], dim=1), batch.labels, reduction="none")
            is_new = batch.labels >= job.old_classes
            losses = losses + OPINION * torch.where(is_new, _divergence(new, batch.own), _divergence(old, batch.old))
            schedule.descend((losses * balance(batch.labels, job.old_classes).float()).sum(), step)
        course.offer(epoch + 1)
    return learned


def _divergence(logits: Tensor, opinion: Tensor) -> Tensor:
    """KL (N,) of `logits` from `opinion`, both (N, classes), softened; scaled so that its gradient keeps its size."""
    soft, wanted = (F.log_softmax(x / TEMPERATURE, dim=1) for x in (logits, opinion))
    return TEMPERATURE**2 * F.kl_div(soft, wanted, reduction="none", log_target=True).sum(1)
