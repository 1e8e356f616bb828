"""Train an insertion: match the source's features first, then, if asked, the labels.

1. Without labels, minimise L = L_features + 0.5 L_local. For taps k with module activations a_k and source activations
   b_k, and logits z against the source's z*:

       L_features = sum_k c_k mean((a_k - b_k)^2) / var(b_k) + mean((z - z*)^2) / var(z*)

   with c_k = 1, and c_k = 2 for the last tap. L_local is `lime.local_mismatch`. The mask is learned during the first
   40 % of the epochs.
2. The tail is cut down to the mask, parallel adapters are added, and the same loss is trained with the mask frozen.
3. If `refine` > 0: a gentle training on labels (`refine`). It comes last and is kept only if the held-out loss falls,
   because cross-entropy on few images damages good features.

Source: the paper's abstract (local performance; localization and insertion are learned
together). The phases and the loss are our own choice.
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
from pnc_core.method.heads.fit import balance
from pnc_core.method.heads.inputs import tap_features
from pnc_core.method.insert import Insertion, bounds_of, localize, score, stitch
from pnc_core.method.job import Batch, Job, traced_step
from pnc_core.method.lime import VARIANTS, cell_count, local_mismatch, variants
from pnc_core.method.mask import LearnedMask
from pnc_core.method.reconstruct import reconstruct_layers, reconstruct_logits
from pnc_core.module.head import Head
from pnc_core.module.tail import extract, with_parallel_adapters

MASK_SHARE = 0.4
"""Share of the epochs in which the mask is learned; it is frozen in the others."""
LOCAL_EVERY, LOCAL_IMAGES, LOCAL_WEIGHT = 8, 4, 0.5
"""The local loss is computed in every 8th step, on 4 images, with weight 0.5. Every image needs 32 forward passes."""
MASK_RATE = 2e-2
"""Peak learning rate of the mask's importances, which lie in [-1, 1] at the start."""
HEAD_RATE, DISTILLATION_WEIGHT, TEMPERATURE = 5e-4, 1.0, 2.0
"""Refining: learning rate of the head; weight and temperature of the distillation loss."""

OnBatch = Callable[[float, float], None]
"""Called after every batch with the share of the work done, 0..1, and the loss."""


def insert(job: Job, position: Position, probe: ImageSet, on_batch: OnBatch) -> Insertion:
    """Make the module at one position: stitch it, localize it and, unless the preset is `fast`, train it.

    An economical job reconstructs the logits later, on the outputs that its heads need (`LogitsFit`).

    Args:
        job: Images and frozen networks.
        position: Pair of positions.
        probe: Images for the ridge regression of the adapter.
        on_batch: Called after every batch.
    """
    insertion = stitch(job, position, probe)
    if job.config.preset == "fast":
        insertion = _closed_form(job, insertion, probe)
    else:
        insertion = _trained(job, insertion, on_batch)
    return reconstruct_logits(job, insertion) if job.config.reconstructs and not job.is_economical else insertion


def _closed_form(job: Job, insertion: Insertion, probe: ImageSet) -> Insertion:
    cut_down = localize(job, insertion)
    if not job.config.inner_adapters:
        return cut_down
    return reconstruct_layers(job, cut_down, insertion.tail, probe if job.is_economical else job.train)


def _trained(job: Job, insertion: Insertion, on_batch: OnBatch) -> Insertion:
    config = job.config
    masking = round(MASK_SHARE * config.epochs) if config.masking == "learned" else 0
    if masking:
        insertion = learn_mask(
            job, insertion, masking, lambda done, loss: on_batch(done * masking / config.epochs, loss)
        )
    else:
        insertion = localize(job, insertion)
    if config.inner_adapters:
        insertion = replace(insertion, tail=with_parallel_adapters(insertion.tail))
    rest = config.epochs - masking
    match_features(
        job, insertion, rest, "last round", lambda done, loss: on_batch((masking + done * rest) / config.epochs, loss)
    )
    return insertion


@traced_step("localization")
def learn_mask(job: Job, insertion: Insertion, epochs: int, on_batch: OnBatch) -> Insertion:
    """Learn the mask together with adapter and calibration, and cut the tail down to the mask.

    Args:
        job: Images and frozen networks.
        insertion: Stitched, with an uncut tail; trained in place.
        epochs: Passes over the training images.
        on_batch: Called after every batch.

    Raises:
        PositionError: no mask keeps the module within its bounds.
    """
    tail, bounds = insertion.tail, bounds_of(job, insertion)
    if not tail.groups:  # nothing can be cut, and the whole tail is within the bounds
        _match(job, insertion, epochs, "mask", on_batch, None)
        return replace(insertion, tail=extract(tail, {}))
    mask = LearnedMask(tail, score(job, insertion), job.config.keep, job.importance_bias(tail), bounds.hold_for)
    try:
        _match(job, insertion, epochs, "mask", on_batch, mask)
    finally:
        insertion.tail.mask(None)
    return replace(insertion, tail=extract(insertion.tail, mask.kept()))


@traced_step("adapter")
def match_features(
    job: Job, insertion: Insertion, epochs: int, round_name: str, on_batch: OnBatch, images: ImageSet | None = None
) -> None:
    """Train adapters and calibration until the tail's activations match the source's own.

    AdamW with a one-cycle schedule; the copied tail stays frozen, norms in eval mode.

    Args:
        job: Images and frozen networks.
        insertion: Trained in place.
        epochs: Passes over the images; 0 trains nothing.
        round_name: Seeds the random order of the images, and names the checkpoint.
        on_batch: Called after every batch.
        images: Training images; by default the job's.
    """
    _match(job, insertion, epochs, round_name, on_batch, None, images)


def _match(
    job: Job,
    insertion: Insertion,
    epochs: int,
    round_name: str,
    on_batch: OnBatch,
    mask: LearnedMask | None,
    images: ImageSet | None = None,
) -> None:
    images = images or job.train
    generator = job.generator("match", insertion.position, round_name)
    groups = [(insertion.parameters(), job.config.learning_rate)]
    schedule = _OneCycle(groups + ([(mask.parameters(), MASK_RATE)] if mask else []), epochs, len(images), job)
    epoch_checkpoints = _EpochCheckpoints(job, f"match {insertion.position} {round_name}", schedule, generator, mask)
    target = Reader(job.target, [insertion.position.target], logits=False)
    source = Reader(job.source, [insertion.position.source, *insertion.tail.taps])
    local_loss = _LocalLoss(job, insertion)
    for epoch in range(epoch_checkpoints.resume(), epochs):
        for batch in job.read(images, generator, target=target, source=source):
            if mask is not None:
                mask.apply()
            with job.autocast():
                loss = _mismatch(insertion, batch)
                if schedule.done % LOCAL_EVERY == 0:
                    loss = loss + LOCAL_WEIGHT * local_loss(batch)
            schedule.descend(loss, on_batch)
        epoch_checkpoints.offer(epoch + 1)


class _OneCycle:
    """AdamW with a one-cycle learning rate for every group of parameters."""

    def __init__(self, groups: list[tuple[list[nn.Parameter], float]], epochs: int, images: int, job: Job) -> None:
        self.done = 0
        self._parameters = [parameter for parameters, _ in groups for parameter in parameters]
        self._total = max(3, epochs * -(-images // job.config.batch_size))
        rates = [rate for _, rate in groups]
        self._optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in groups], weight_decay=1e-4
        )
        # OneCycleLR divides by zero with fewer than three steps in all, or fewer than two of rising rate.
        rise = max(0.2, 2 / self._total)
        self._cycle = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, rates, total_steps=self._total, pct_start=rise
        )

    def descend(self, loss: Tensor, on_batch: OnBatch) -> None:
        """Take one optimizer step on `loss`, and report it."""
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._cycle.step()
        self.done += 1
        on_batch(min(1.0, self.done / self._total), float(loss.detach()))

    def state(self) -> State:
        """State of parameters, optimizer and schedule."""
        whole = self._optimizer.state_dict()
        moments = {f"{i}.{name}": t.clone() for i, row in whole["state"].items() for name, t in row.items()}
        learned = {f"{i}.learned": p.detach().clone() for i, p in enumerate(self._parameters)}
        return State({"done": self.done, "groups": whole["param_groups"]}, {**moments, **learned})

    def restore(self, state: State) -> None:
        """Restore parameters, optimizer and schedule from `state`."""
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


class _EpochCheckpoints:
    """Saves a training loop's state after every epoch, and restores it after an interruption."""

    def __init__(
        self,
        job: Job,
        name: str,
        schedule: _OneCycle,
        generator: torch.Generator,
        mask: LearnedMask | None = None,
    ) -> None:
        self._checkpoints, self._name = job.checkpoints, name
        self._schedule, self._generator, self._mask = schedule, generator, mask

    def offer(self, epochs: int) -> None:
        """Save the state after `epochs` epochs."""
        state = self._schedule.state()
        extra = {f"open.{n}": t.clone() for n, t in self._mask.open.items()} if self._mask else {}
        tensors = {**state.tensors, **extra, "generator": self._generator.get_state()}
        self._checkpoints.offer(self._name, State({**state.facts, "epochs": epochs}, tensors))

    def resume(self) -> int:
        """Restore the newest state, if there is one; returns the number of epochs done."""
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
    """L_features of the module's docstring for one batch: every tap weighs 1, the last tap 2, the logits 1."""
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
    """mean((got - wanted)^2) / var(wanted)."""
    wanted = wanted.float()
    return (got.float() - wanted).square().mean() / wanted.var(correction=0).clamp_min(1e-8)


class _LocalLoss:
    """L_local: mismatch of the local behaviour of module and source (`lime.local_mismatch`).

    The reference is the source's uncut tail on variants of the source's activation. The module gets variants of the
    target's activation with the same cells blocked.
    """

    def __init__(self, job: Job, insertion: Insertion) -> None:
        self._insertion, self._cloned = insertion, list(job.cloned)
        self._whole = cut(job.source, insertion.position.source, ())

    def __call__(self, batch: Batch) -> Tensor:
        """The loss, a scalar; 0 if the two grids do not have the same cells."""
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


def refine(job: Job, insertion: Insertion, head: Head, grid: int, on_batch: OnBatch) -> Insertion:
    """Train adapters and a copy of the head on labels.

    The loss of an image of class y, with weights that give old and new images half each, is

        CE(z, y) + T^2 KL(softmax(t_s / T) | softmax(z_s / T)),    T = 2

    where z are the joint logits, s is the side (old or new) that has class y, z_s are the joint logits of its classes,
    and t_s are the logits of its frozen network (distillation).

    Args:
        job: Images and frozen networks.
        insertion: Not changed.
        head: Starting point of the head, on any device; not changed.
        grid: Number of cells per side that the head reads.
        on_batch: Called after every batch.

    Returns:
        A trained copy of the insertion. The caller fits its head again.
    """
    learned, head = copy.deepcopy(insertion), copy.deepcopy(head).to(job.target.device).requires_grad_(True)
    rates = [(learned.parameters(), job.config.learning_rate), (list(head.parameters()), HEAD_RATE)]
    schedule = _OneCycle(rates, job.config.refine, len(job.train), job)
    generator = job.generator("refine")
    target, source = Reader(job.target, [p.name for p in job.target.positions]), Reader(job.source, [])
    epoch_checkpoints = _EpochCheckpoints(job, "refine", schedule, generator)
    for epoch in range(epoch_checkpoints.resume(), job.config.refine):
        for batch in job.read(job.train, generator, target=target, source=source):
            with job.autocast():
                own, made = learned.forward(batch)
            features = tap_features(job, learned, batch, made, grid)
            old, new = head(batch.old, own.float(), features)
            losses = F.cross_entropy(torch.cat([old, new], dim=1), batch.labels, reduction="none")
            is_new = batch.labels >= job.old_classes
            distillation = torch.where(is_new, _divergence(new, batch.own), _divergence(old, batch.old))
            losses = losses + DISTILLATION_WEIGHT * distillation
            schedule.descend((losses * balance(batch.labels, job.old_classes).float()).sum(), on_batch)
        epoch_checkpoints.offer(epoch + 1)
    return learned


def _divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """T^2 KL(softmax(teacher / T) | softmax(logits / T)), (N,), from logits (N, classes); T = `TEMPERATURE`.

    The factor T^2 keeps the size of the gradient independent of T.
    """
    student, wanted = (F.log_softmax(x / TEMPERATURE, dim=1) for x in (logits, teacher))
    return TEMPERATURE**2 * F.kl_div(student, wanted, reduction="none", log_target=True).sum(1)
