"""Where a network's tensors hold which group's channels, and how channels are physically removed.

Own choice: a module's rows and columns are described once, as runs of channels of
groups, and counting and removing are read off that; no layer needs a rule of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ROWS = ("weight", "bias", "running_mean", "running_var", "in_proj_weight", "in_proj_bias")
"""Tensors whose rows are a module's outputs."""
COLUMNS = ("weight", "in_proj_weight")
"""Tensors whose columns are a module's inputs."""


@dataclass(frozen=True)
class Piece:
    """A run of neighbouring features."""

    group: str | None
    """Name of the group whose channels they are; None if they must stay."""
    width: int
    """How many channels of the group."""
    repeat: int
    """How many neighbouring features belong to one channel, as after a flatten."""


Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """What the rows and columns of a module's tensors are; empty where nothing can be removed."""

    inputs: Pieces = ()
    outputs: Pieces = ()


def features(pieces: Pieces, sizes: Mapping[str, int]) -> int:
    """How many features are left with `sizes[group]` channels of each group; groups not named stay whole."""
    return sum((p.width if p.group is None else sizes.get(p.group, p.width)) * p.repeat for p in pieces)


def shrunk(count: int, side: Pieces, sizes: Mapping[str, int]) -> int:
    """What is left of `count`, which grows with the features of a side, with `sizes[group]` channels of each group."""
    return count * features(side, sizes) // features(side, {}) if any(p.group in sizes for p in side) else count


def parameter_count(part: nn.Module, layouts: Mapping[str, Layout], sizes: Mapping[str, int]) -> int:
    """How many numbers `part` would hold with `sizes[group]` channels left of each group.

    Exact: a tensor shrinks along its rows and its columns.
    """
    counts = {name: tensor.numel() for name, tensor in part.state_dict().items()}
    for path, layout in layouts.items():
        for side, tensors in ((layout.inputs, COLUMNS), (layout.outputs, ROWS)):
            for name in (f"{path}.{t}" for t in tensors):
                if name in counts:
                    counts[name] = shrunk(counts[name], side, sizes)
    return sum(counts.values())


def remove_channels(part: nn.Module, layouts: Mapping[str, Layout], kept: Mapping[str, Tensor]) -> None:
    """Physically remove all channels but `kept`; `part` is changed in place.

    Args:
        part: Owns the modules; its kept numbers stay bit for bit.
        layouts: As `channel_groups` found them in `part`.
        kept: int64 (k,) indices of the channels that stay, by group; groups not named stay whole.
    """
    for path, layout in layouts.items():
        module = part.get_submodule(path)
        if any(p.group in kept for p in layout.inputs):
            _slice(module, COLUMNS, kept_features(layout.inputs, kept), 1)
        if any(p.group in kept for p in layout.outputs):
            _slice(module, ROWS, kept_features(layout.outputs, kept), 0)
        _set_widths(module)


def kept_features(pieces: Pieces, kept: Mapping[str, Tensor]) -> Tensor:
    """Which features stay, int64 in order, when these channels of each group do; groups not named stay whole."""
    found, start = [], 0
    for piece in pieces:
        channels = torch.arange(piece.width) if piece.group is None else kept.get(piece.group)
        channels = torch.arange(piece.width) if channels is None else channels.cpu()
        found.append(start + (channels[:, None] * piece.repeat + torch.arange(piece.repeat)).reshape(-1))
        start += piece.width * piece.repeat
    return torch.cat(found)


def _set_widths(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(module.running_mean if module.weight is None else module.weight)
    elif isinstance(module, nn.Conv2d):
        rows, size = module.weight.shape[:2]
        # Groups are removed whole, so that each still makes as many rows as before.
        module.groups = module.groups * rows // module.out_channels if module.groups > 1 else 1
        module.out_channels, module.in_channels = rows, size * module.groups


def _slice(module: nn.Module, names: Iterable[str], kept: Tensor, axis: int) -> None:
    for name in names:
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor):
            piece = tensor.detach().index_select(axis, kept.to(tensor.device))
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, name, nn.Parameter(piece, requires_grad=False) if is_parameter else piece)
