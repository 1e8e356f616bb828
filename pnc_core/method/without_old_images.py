"""A head without a single image of the target's own classes.

The target's batch norms remember the images it was trained on: the mean and variance
of every channel before every norm. On the new images the same moments are
seen, together with the taps that a head reads; a ridge regression of taps on moments,
put at the remembered moments, says what the taps are on average over old images.
With the taps' covariance (of new images, within their classes) that makes a linear
discriminant between old and new, which becomes a router's gate.

The threshold takes old images for the mirror image of new ones: what either network's logits are on its own
classes the other's are on theirs. For the logits the middle is where as many new images are given up as have an
old class for the surer answer of the two networks' softmax; for the gate it is half-way between new images and what
is expected of old ones. At least 3 % and at most 30 % of the new images are given up, since that is an extrapolation.

Own choice throughout. A network without batch norms remembers nothing: there, as with an affine head, the logits'
middle is all there is.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pnc_core.devices import full_precision
from pnc_core.errors import ConfigError
from pnc_core.graph.positions import Traced
from pnc_core.images import batches
from pnc_core.method.fit_head import FittedHead, HeadInputs, accuracy, head_logits
from pnc_core.method.job import Job, enter
from pnc_core.method.thresholds import bar_below
from pnc_core.module.adapter import RidgeSums
from pnc_core.module.head import Head, seen_width

SHRINK = 0.1
"""Added to the diagonal of the standardised taps' covariance."""
TRUST, MISSED = 0.35, (0.03, 0.3)
"""Spread of the gate over that of the logits' own verdict; least and largest share of new images that is given up.

Chosen on development splits of CIFAR-10 (one), digits (three) and MNIST (two): 0.25 to 0.5 and 0.02 do as well.
"""


class _Moments(fx.Interpreter):
    """Runs a network and notes mean and mean square of every channel before every batch norm."""

    def __init__(self, network: Traced) -> None:
        super().__init__(network.graph_module)
        self.found: list[Tensor] = []

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(self.fetch_attr(target), nn.BatchNorm2d):
            x = args[0].float()
            self.found += [x.mean((2, 3)), x.square().mean((2, 3))]
        return super().call_module(target, args, kwargs)


def remembered_moments(network: Traced) -> Tensor | None:
    """What the batch norms remember, float32 (M,), in the graph's order: means, then mean squares, norm by norm."""
    calls = [str(n.target) for n in network.graph_module.graph.nodes if n.op == "call_module"]
    norms = [m for m in map(network.graph_module.get_submodule, calls) if isinstance(m, nn.BatchNorm2d)]
    moments: list[Tensor] = []
    for norm in norms:
        if norm.running_mean is None or norm.running_var is None:
            return None
        moments += [norm.running_mean, norm.running_var + norm.running_mean.square()]
    return torch.cat(moments).float().cpu() if moments else None


def kind_without_old_images(job: Job) -> str:
    """Kind of the head that is made without old images: a gate needs batch norms that remember.

    Raises:
        ConfigError: a router is asked for, and the target has none.
    """
    if job.config.head == "affine":
        return "affine"
    if remembered_moments(job.target) is not None:
        return "router"
    if job.config.head == "router":
        raise ConfigError(
            "head: expected affine or auto where old_images is false and the target has no batch norms that remember "
            "old images, got 'router'; give images of old classes, or choose another head"
        )
    return "affine"


@full_precision()
def without_old_images(job: Job, train: HeadInputs, validation: HeadInputs) -> FittedHead:
    """A head from new images alone; its score is of the new side, for want of old images.

    Args:
        job: Its training images are of the cloned classes only.
        train: Rows of the training images first, then of their views; taps pooled to one cell.
        validation: Rows of held-out new images.
    """
    kind = kind_without_old_images(job)
    memory = remembered_moments(job.target) if kind == "router" else None
    head = Head(kind, train.features.shape[1], train.old.shape[1], train.own.shape[1]).requires_grad_(False)
    middle = bar_below(_verdict(head, validation), _surer_of_old(validation))
    if memory is not None:
        own, moments = train.first(len(job.train)), _moments(job)
        gate = _discriminant(own, moments, memory, seen_width(job.target, 1))
        taps = own.features[:, : len(gate)]
        gate *= TRUST * _verdict(head, own).std() / (taps @ gate).std().clamp_min(1e-6)
        head.weight[0, : len(gate)] = gate
        new = (taps @ gate).double()
        old = _expected(moments, new[:, None], memory)[0]
        middle = middle + ((new.mean() + old) / 2).float()
    least, most = (bar_below(_verdict(head, validation), share) for share in MISSED)
    head.offset.sub_(middle.clamp(least, most))
    score = accuracy(head_logits(head, validation), validation.labels, job.old_classes)
    return FittedHead(head, 1, head, score)


def _surer_of_old(rows: HeadInputs) -> float:
    """Share of the rows whose surest class, by the softmax of either network, is the target's."""
    old, new = (logits.softmax(1).amax(1) for logits in (rows.old, rows.own))
    return float((old > new).double().mean())


def _verdict(head: Head, rows: HeadInputs) -> Tensor:
    """How much more the head makes of the new side than of the old, (N,)."""
    old, new = head(rows.old, rows.own, rows.features)
    verdict: Tensor = new.logsumexp(1) - old.logsumexp(1)
    return verdict


def _discriminant(rows: HeadInputs, moments: Tensor, memory: Tensor, width: int) -> Tensor:
    """Direction (width,) in the target's taps from what it remembers of old images to the new ones."""
    taps, labels = rows.features[:, :width].double(), rows.labels
    mean, std = taps.mean(0), taps.std(0).clamp_min(1e-6)
    taps = (taps - mean) / std
    old = _expected(moments, taps, memory)
    within = torch.cat([taps[labels == c] - taps[labels == c].mean(0) for c in labels.unique()])
    covariance = within.T @ within / len(within) + SHRINK * torch.eye(width, dtype=torch.float64)
    # New taps have mean zero by now, so that the old ones are where the difference points from.
    direction: Tensor = torch.linalg.solve(covariance, -old) / std
    return direction.float()


def _moments(job: Job) -> Tensor:
    """Moments of the training images before every batch norm of the target: (N, M)."""
    rows = []
    for index in batches(len(job.train), job.config.batch_size):
        job.checkpoint()
        reader = _Moments(job.target)
        with torch.no_grad(), job.autocast():
            reader.run(enter(job.train.views[index], job.target))
        rows.append(torch.cat(reader.found, dim=1).cpu())
    return torch.cat(rows)


def _expected(moments: Tensor, values: Tensor, memory: Tensor) -> Tensor:
    """Values (D,) where the moments are the remembered ones, by ridge regression of values (N, D) on moments (N, M)."""
    mean, std = moments.mean(0), moments.std(0).clamp_min(1e-6)
    sums = RidgeSums(moments.shape[1], values.shape[1])
    sums.add((moments - mean) / std, values)
    weight, bias = sums.solve(1e-2)
    return F.linear((memory - mean) / std, weight, bias).double()
