"""A baseline that merges two networks without training them.

References:
    Stoica et al., "ZipIt! Merging Models from Different Tasks without Training", ICLR 2024.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.comparison.task import MethodOutput, Task, fitted_head, numbers
from benchmarks.comparison.training import recalibrate
from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.graph.architectures import BasicBlock, Chain, CifarResNet
from pnc_core.images import preprocess

MERGED_SHARE, MATCHED_IMAGES, STATISTICS_IMAGES = 2 / 3, 500, 4000


def zipit_partial(task: Task) -> MethodOutput:
    """Merge the first two thirds of both networks without training, then scale and shift the new logits."""
    network, spec = Zipped(task), task.target[1]

    def read(pixels: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        old, own = network(preprocess(pixels, spec, task.device))
        return old, own, [old]

    head, logits = fitted_head(task, "affine", read, views=1)
    norms = [m for m in network.old.modules() if isinstance(m, nn.BatchNorm2d)]
    size = numbers(network.merged, network.own, *norms, head)  # the weights of the old tail are the target's
    return MethodOutput(logits, size, multiply_accumulates(network, spec), len(task.images))


class Zipped(nn.Module):
    """A merged trunk of two networks, followed by the unmerged tail of each.

    Channels of both networks are paired by correlation, each channel once, and every pair
    becomes one channel. Supports only this project's chain and ResNet architectures.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        (first, self.old), (second, self.own) = (_halves(network) for network, _ in (task.target, task.source))
        self.merged = copy.deepcopy(first)
        sides = [_zip_layers(first), _zip_layers(second)]
        copies = _copies(sides[0], _correlations(task, [first, second], sides))
        for mixed, *layers in zip(_zip_layers(self.merged), *sides, strict=True):
            _merge(mixed, layers, copies)
        self._unzip = [_spread(sides[0][-1].makes, copies, side) for side in (0, 1)]
        self._cloned = task.cloned_indices
        # Averaging channels lowers the variance of the tails' inputs, so the norms need new statistics.
        recalibrate(self, task.target[1], task.images.sample(STATISTICS_IMAGES, task.generator("statistics")))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Preprocessed images -> old logits, new logits."""
        x = self.merged(x)
        old, own = (torch.einsum("oi,nihw->nohw", rows, x) for rows in self._unzip)
        return self.old(old), self.own(own)[:, self._cloned]


def _halves(network: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    network = copy.deepcopy(network)
    if isinstance(network, CifarResNet):
        blocks = [network.stem, *network.layer1, *network.layer2, *network.layer3]
    elif isinstance(network, Chain):
        blocks = [*network.blocks]
    else:
        raise TypeError(f"network: expected a chain or a CIFAR ResNet, got {type(network).__name__}")
    merged = round(MERGED_SHARE * len(blocks))
    return nn.Sequential(*blocks[:merged]), nn.Sequential(*blocks[merged:], network.pool, network.flatten, network.fc)


@dataclass(frozen=True)
class _ZipLayer:
    """A convolution, its norm, and the module whose output is used to correlate its channels.

    `reads` and `makes` number spaces of channels. All layers of a space share one pairing: a residual stream is
    one space, and a block that widens the stream adds a further space.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    shown: nn.Module
    reads: tuple[int, ...]
    makes: tuple[int, ...]


def _zip_layers(trunk: nn.Sequential) -> list[_ZipLayer]:
    found: list[_ZipLayer] = []
    stream: tuple[int, ...] = ()
    for block in trunk:
        fresh = len(found)
        if isinstance(block, BasicBlock):
            found.append(_ZipLayer(block.conv1, block.bn1, block.relu1, stream, (fresh,)))
            stream = (*stream, fresh + 1) if block.padding else stream
            found.append(_ZipLayer(block.conv2, block.bn2, block.relu2, (fresh,), stream))
        else:
            conv, norm, relu = [*block.children()][:3]
            found.append(_ZipLayer(conv, norm, relu, stream, (fresh,)))  # type: ignore[arg-type]
            stream = (fresh,)
    return found


def _correlations(task: Task, trunks: list[nn.Sequential], sides: list[list[_ZipLayer]]) -> list[Tensor]:
    """Correlation of the output channels of both networks for every layer: (2C, 2C), the target's channels first."""
    seen: dict[nn.Module, Tensor] = {}
    shown = [[layer.shown for layer in side] for side in sides]
    hooks = [m.register_forward_hook(lambda m, _, out: seen.update({m: out})) for side in shown for m in side]
    images = task.images.sample(MATCHED_IMAGES, task.generator("matched")).images
    with torch.no_grad():
        for trunk in trunks:
            trunk(preprocess(images, task.target[1], task.device))
    for hook in hooks:
        hook.remove()
    rows = (torch.cat([seen[m] for m in pair], 1).movedim(1, 0).flatten(1) for pair in zip(*shown, strict=True))
    return [torch.corrcoef(r).nan_to_num() for r in rows]  # constant channels have no correlation


def _copies(layers: list[_ZipLayer], correlations: list[Tensor]) -> dict[int, Tensor]:
    """For every space a 0/1 tensor (2, C, C): [side, channel, merged channel]; side 0 is the target, side 1 the
    source."""
    found: dict[int, list[Tensor]] = {}
    width: dict[int, int] = {}
    for layer, correlation in zip(layers, correlations, strict=True):
        channels, start = len(correlation) // 2, 0
        quarters = correlation.reshape(2, channels, 2, channels)
        for space in layer.makes:
            width.setdefault(space, channels - start)
            part = slice(start, start + width[space])
            found.setdefault(space, []).append(quarters[:, part, :, part].flatten(2).flatten(0, 1))
            start += width[space]
    return {space: _paired(torch.stack(seen).mean(0)) for space, seen in found.items()}


def _paired(correlation: Tensor) -> Tensor:
    """Pair channels greedily by falling correlation. A pair may lie within one network."""
    left, channels = correlation.clone().fill_diagonal_(-torch.inf), len(correlation) // 2
    copies = torch.zeros_like(left)[:, :channels]
    for merged in range(channels):
        pair = list(divmod(int(left.argmax()), 2 * channels))
        copies[pair, merged] = 1
        left[pair] = left[:, pair] = -torch.inf
    return copies.reshape(2, channels, channels)


def _spread(spaces: tuple[int, ...], copies: dict[int, Tensor], side: int) -> Tensor:
    joined: Tensor = torch.block_diag(*(copies[space][side] for space in spaces))
    return joined


def _merge(mixed: _ZipLayer, layers: list[_ZipLayer], copies: dict[int, Tensor]) -> None:
    """Merge two layers into `mixed`, in place.

    Rows of paired channels are scaled by their norms and averaged; scale and shift of the norm are averaged too.
    """
    weight, gain, shift = (torch.zeros_like(p.data) for p in (mixed.conv.weight, mixed.norm.weight, mixed.norm.bias))
    for side, layer in enumerate(layers):
        into = _spread(layer.makes, copies, side).T / 2
        read = _spread(layer.reads, copies, side) if layer.reads else torch.eye(layer.conv.in_channels).to(into)
        assert layer.norm.running_var is not None
        scale = layer.norm.weight / (layer.norm.running_var + layer.norm.eps).sqrt()
        weight += torch.einsum("po,o,oihw,iq->pqhw", into, scale, layer.conv.weight, read)
        gain += into @ layer.norm.weight.abs()
        shift += into @ layer.norm.bias
    for parameter, value in ((mixed.conv.weight, weight), (mixed.norm.weight, gain), (mixed.norm.bias, shift)):
        parameter.data.copy_(value)
