"""The rows and columns of tensors that hold each group's channels, and the removal of channels.

Own choice: the rows and columns of a module are described once, as runs of channels of groups. Counting and removing
read this description, so that no kind of layer needs its own rule.
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
    """Name of the channels' group; None if the channels must stay."""
    width: int
    """Number of channels of the group."""
    repeat: int
    """Number of neighbouring features of one channel, such as after a flatten."""


Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """The runs of channels along a module's columns (inputs) and rows (outputs); empty where nothing can be removed."""

    inputs: Pieces = ()
    outputs: Pieces = ()


def features(pieces: Pieces, sizes: Mapping[str, int]) -> int:
    """Number of features with `sizes[group]` channels of each group; groups without a size stay whole."""
    return sum((p.width if p.group is None else sizes.get(p.group, p.width)) * p.repeat for p in pieces)


def shrunk(count: int, side: Pieces, sizes: Mapping[str, int]) -> int:
    """`count` numbers, in proportion to the features of a side, with `sizes[group]` channels of each group."""
    return count * features(side, sizes) // features(side, {}) if any(p.group in sizes for p in side) else count


def parameter_count(part: nn.Module, layouts: Mapping[str, Layout], sizes: Mapping[str, int]) -> int:
    """Count the numbers of `part` with `sizes[group]` channels of each group.

    The count is exact: a tensor shrinks along its rows and its columns.
    """
    counts = {name: tensor.numel() for name, tensor in part.state_dict().items()}
    for path, layout in layouts.items():
        for side, tensors in ((layout.inputs, COLUMNS), (layout.outputs, ROWS)):
            for name in (f"{path}.{t}" for t in tensors):
                if name in counts:
                    counts[name] = shrunk(counts[name], side, sizes)
    return sum(counts.values())


def remove_channels(part: nn.Module, layouts: Mapping[str, Layout], kept: Mapping[str, Tensor]) -> None:
    """Remove all channels except `kept` from the tensors; `part` is changed in place.

    Args:
        part: The owner of the modules; its kept numbers do not change.
        layouts: Found in `part` by `channel_groups`.
        kept: int64 (k,) indices of the kept channels by group; groups without indices stay whole.
    """
    for path, layout in layouts.items():
        module = part.get_submodule(path)
        if any(p.group in kept for p in layout.inputs):
            _slice(module, COLUMNS, kept_features(layout.inputs, kept), 1)
        if any(p.group in kept for p in layout.outputs):
            _slice(module, ROWS, kept_features(layout.outputs, kept), 0)
        _set_widths(module)


def kept_features(pieces: Pieces, kept: Mapping[str, Tensor]) -> Tensor:
    """Indices (int64, in order) of the features of the kept channels; groups without indices stay whole."""
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
        # Only whole groups are removed: each group makes as many rows as before.
        module.groups = module.groups * rows // module.out_channels if module.groups > 1 else 1
        module.out_channels, module.in_channels = rows, size * module.groups


def _slice(module: nn.Module, names: Iterable[str], kept: Tensor, axis: int) -> None:
    for name in names:
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor):
            piece = tensor.detach().index_select(axis, kept.to(tensor.device))
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, name, nn.Parameter(piece, requires_grad=False) if is_parameter else piece)
