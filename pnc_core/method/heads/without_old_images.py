"""Fit a head without any image of the target's own (old) classes.

Batch norms store the mean and variance of every channel over the target's training images. So the target's moments
m_old of old images are known, although the images are not.

1. Ridge regression on the new images: taps f = R m + r, from the moments m of each image.
2. Estimated mean taps of old images: f_old = R m_old + r.
3. Linear discriminant between old and new: w = (C + 0.1 I)^-1 (f_new - f_old), where C is the covariance of the new
   images' taps within their classes. All taps are standardised on the new images, so f_new = 0.
4. The router's gate is w, scaled so that its standard deviation is 0.35 times that of the margin
   s = logsumexp(new logits) - logsumexp(old logits).

The head's offset is set by a threshold t on s + w . f, so that t separates old from new images:

    t = t_logits + (mean of w . f over new images + w . f_old) / 2, limited to [q(0.03), q(0.3)]
    t_logits = q(share of new images for which the target's softmax has the larger maximum)

where q(a) is the a-quantile over held-out new images: of s for t_logits, of s + w . f for the limits. The limits keep
the share of rejected new images between 3 % and 30 %, because the estimate is an extrapolation.

Both terms of t assume that the scores of old images mirror the scores of new images.

Own choice throughout. A target without batch norms, and every `affine` head, uses t_logits only.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pnc_core.devices import full_precision
from pnc_core.errors import ConfigError
from pnc_core.graph.positions import Traced
from pnc_core.images import batches
from pnc_core.method.heads.choose import FittedHead
from pnc_core.method.heads.fit import HeadInputs, accuracy, head_logits
from pnc_core.method.heads.locality_gate import threshold_below
from pnc_core.method.job import Job, enter
from pnc_core.module.adapter import RidgeSums
from pnc_core.module.head import Head, seen_width

SHRINK = 0.1
"""Added to the diagonal of the covariance C of the standardised taps."""
GATE_SPREAD, REJECTED_SHARES = 0.35, (0.03, 0.3)
"""Standard deviation of the gate over that of the margin s; smallest and largest share of rejected new images.

Chosen on development splits of CIFAR-10 (one), digits (three) and MNIST (two). A spread of 0.25 to 0.5 and a smallest
share of 0.02 give about the same accuracy.
"""


class _Moments(fx.Interpreter):
    """Runs a network and records the mean and the mean square of every channel before every batch norm."""

    def __init__(self, network: Traced) -> None:
        super().__init__(network.graph_module)
        self.found: list[Tensor] = []

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(self.fetch_attr(target), nn.BatchNorm2d):
            x = args[0].float()
            self.found += [x.mean((2, 3)), x.square().mean((2, 3))]
        return super().call_module(target, args, kwargs)


def stored_moments(network: Traced) -> Tensor | None:
    """Moments m_old stored in the batch norms, float32 (M,): for every norm in graph order, means, then mean squares.

    None if there is no batch norm, or one keeps no statistics.
    """
    calls = [str(n.target) for n in network.graph_module.graph.nodes if n.op == "call_module"]
    norms = [m for m in map(network.graph_module.get_submodule, calls) if isinstance(m, nn.BatchNorm2d)]
    moments: list[Tensor] = []
    for norm in norms:
        if norm.running_mean is None or norm.running_var is None:
            return None
        moments += [norm.running_mean, norm.running_var + norm.running_mean.square()]
    return torch.cat(moments).float().cpu() if moments else None


def kind_without_old_images(job: Job) -> str:
    """Kind of the head: `router` if the target's batch norms store statistics, else `affine`.

    Raises:
        ConfigError: the job asks for a router, and the target's batch norms store no statistics.
    """
    if job.config.head == "affine":
        return "affine"
    if stored_moments(job.target) is not None:
        return "router"
    if job.config.head == "router":
        raise ConfigError(
            "head: expected affine or auto where old_images is false and the target has no batch norms with stored "
            "statistics, got 'router'; give images of old classes, or choose another head"
        )
    return "affine"


@full_precision()
def without_old_images(job: Job, train: HeadInputs, validation: HeadInputs) -> FittedHead:
    """Fit a head on new images only.

    Args:
        job: Its training images show cloned classes only.
        train: Rows of the training images, followed by the rows of their views; taps pooled to one cell.
        validation: Rows of held-out new images.

    Returns:
        The head. Its score holds only the accuracy on new images.
    """
    kind = kind_without_old_images(job)
    stored = stored_moments(job.target) if kind == "router" else None
    head = Head(kind, train.features.shape[1], train.old.shape[1], train.own.shape[1]).requires_grad_(False)
    threshold = threshold_below(_margin(head, validation), _share_surer_of_old(validation))
    if stored is not None:
        own, moments = train.first(len(job.train)), _moments(job)
        gate = _discriminant(own, moments, stored, seen_width(job.target, 1))
        taps = own.features[:, : len(gate)]
        gate *= GATE_SPREAD * _margin(head, own).std() / (taps @ gate).std().clamp_min(1e-6)
        head.weight[0, : len(gate)] = gate
        new = (taps @ gate).double()
        old = _expected(moments, new[:, None], stored)[0]
        threshold = threshold + ((new.mean() + old) / 2).float()
    least, most = (threshold_below(_margin(head, validation), share) for share in REJECTED_SHARES)
    head.offset.sub_(threshold.clamp(least, most))
    score = accuracy(head_logits(head, validation), validation.labels, job.old_classes)
    return FittedHead(head, 1, head, score)


def _share_surer_of_old(rows: HeadInputs) -> float:
    """Share of rows for which the target's softmax has a larger maximum than the module's."""
    old, new = (logits.softmax(1).amax(1) for logits in (rows.old, rows.own))
    return float((old > new).double().mean())


def _margin(head: Head, rows: HeadInputs) -> Tensor:
    """Margin s = logsumexp(new logits) - logsumexp(old logits), (N,)."""
    old, new = head(rows.old, rows.own, rows.features)
    margin: Tensor = new.logsumexp(1) - old.logsumexp(1)
    return margin


def _discriminant(rows: HeadInputs, moments: Tensor, stored: Tensor, width: int) -> Tensor:
    """w = (C + SHRINK I)^-1 (f_new - f_old), (width,), in units of the taps as they are."""
    taps, labels = rows.features[:, :width].double(), rows.labels
    mean, std = taps.mean(0), taps.std(0).clamp_min(1e-6)
    taps = (taps - mean) / std
    old = _expected(moments, taps, stored)
    within = torch.cat([taps[labels == c] - taps[labels == c].mean(0) for c in labels.unique()])
    covariance = within.T @ within / len(within) + SHRINK * torch.eye(width, dtype=torch.float64)
    # f_new = 0: the taps are standardised on the new images.
    direction: Tensor = torch.linalg.solve(covariance, -old) / std
    return direction.float()


def _moments(job: Job) -> Tensor:
    """Moments (N, M) of every training image before every batch norm of the target."""
    rows = []
    for index in batches(len(job.train), job.config.batch_size):
        job.checkpoint()
        reader = _Moments(job.target)
        with torch.no_grad(), job.autocast():
            reader.run(enter(job.train.views[index], job.target))
        rows.append(torch.cat(reader.found, dim=1).cpu())
    return torch.cat(rows)


def _expected(moments: Tensor, values: Tensor, stored: Tensor) -> Tensor:
    """Estimated values (D,) at the moments `stored` (M,), by ridge regression of values (N, D) on moments (N, M)."""
    mean, std = moments.mean(0), moments.std(0).clamp_min(1e-6)
    sums = RidgeSums(moments.shape[1], values.shape[1])
    sums.add((moments - mean) / std, values)
    weight, bias = sums.solve(1e-2)
    return F.linear((stored - mean) / std, weight, bias).double()
