"""A file of weights and the network that it is meant for become one safetensors file and a description."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from app.local.specs import given_spec, read_object
from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError, UnknownArchitecture, WeightsMismatch
from pnc_core.graph.candidates import Facts
from pnc_core.graph.identify import Fit, Identified, Near, compare, identify
from pnc_core.networks import plain
from pnc_core.networks.checkpoint import read_checkpoint, write
from pnc_core.networks.files import Take, is_ready
from pnc_core.networks.matching import renamed
from pnc_core.tensorfile import read_header

NOT_SCALED = (0.0, 1.0)
"""Mean and standard deviation of each channel while they are unknown."""
_HOW = {"order": "equal shapes in equal order", "shapes": "equal shapes, names in their natural order"}


class Unfit(WeightsMismatch):
    """No network was found for a file of weights, or not a single one."""

    def __init__(self, message: str, identified: Identified) -> None:
        super().__init__(message)
        self.identified = identified


@dataclass(frozen=True)
class Wanted:
    """What the user said about a file of weights."""

    spec: Path
    """The description; it may be missing."""
    fields: Mapping[str, str | None]
    """Fields of the description as text, in place of the file's."""
    options: tuple[str, ...] = ()
    """Of the architecture, `name=value`."""
    take: Take | None = None
    """Plain weights or their moving average."""
    key_map: Path | None = None
    """A JSON file with new names by old ones."""
    preprocessing: Mapping[str, str | float | bool | None] = field(default_factory=dict)
    """Fields of a `Preprocessing`, and `crop_share`, in place of the file's."""
    scaling_later: bool = False
    """Mean and standard deviation may be missing: `NOT_SCALED` stands for them until a check finds them."""


@dataclass(frozen=True)
class Weights:
    """A file of weights that was opened."""

    shapes: dict[str, tuple[int, ...]]
    """By name, in the file's order."""
    ordered: bool
    """Whether this is the network's order."""
    notes: tuple[str, ...] = ()
    """One line for each thing that was chosen, changed or left out."""
    architecture: str | None = None
    """The name that the training script noted."""
    tensors: dict[str, Tensor] | None = None
    """None: the file is safetensors, and nothing in it has to change."""

    def identify(self, input_size: tuple[int, int, int] | None = None) -> Identified:
        """Find the architectures that take these weights."""
        return identify(self.shapes, ordered=self.ordered, input_size=input_size, noted=self.architecture)


def opened(path: Path, take: Take | None = None, key_map: Path | None = None) -> Weights:
    """Open any checkpoint, and rename its tensors.

    Args:
        path: The file.
        take: Plain weights or their moving average.
        key_map: A JSON object with new names by old ones, of tensors or of layers; null leaves tensors out.

    Raises:
        TensorFileError: the file holds other things than the weights of one network.
        ConfigError: the key map is not such an object.
    """
    if take is None and key_map is None and is_ready(path):
        return Weights({name: info.shape for name, info in read_header(path).tensors.items()}, ordered=False)
    found = read_checkpoint(path, take)
    names = _new_names(key_map, [*found.tensors])
    tensors = {new: found.tensors[old] for old, new in names.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Weights(shapes, found.ordered, found.notes, found.architecture, tensors)


@contextmanager
def brought(path: Path, wanted: Wanted, note: Callable[[str], object]) -> Iterator[tuple[NetworkSpec, Path]]:
    """A network's description and its weights as a safetensors file.

    Args:
        path: Any file of weights.
        wanted: Without an architecture, it is found by the tensors.
        note: Told each choice and change.

    Returns:
        The description, and the file itself if nothing in it has to change, else a copy that is gone after the block.

    Raises:
        Unfit: the tensors fit no network, or several that compute different logits.
        TensorFileError: the file holds other things than the weights of one network.
        ConfigError: the description lacks a field.
    """
    weights = opened(path, wanted.take, wanted.key_map)
    for text in weights.notes:
        note(text)
    found: dict[str, Any] = {}
    if wanted.fields.get("architecture") is None and not wanted.spec.is_file():
        fit, facts = _found(weights, wanted.spec)
        note(f"found {title(fit)}")
        found = _fields(fit, facts, wanted)
    if wanted.scaling_later:
        channels = Facts(weights.shapes, weights.ordered).channels
        found = {n: [x] * channels for n, x in zip(("mean", "std"), NOT_SCALED, strict=True)} | found
    spec = given_spec(wanted.spec, wanted.fields, wanted.options, found, wanted.preprocessing)
    weights = _fused(path, weights, spec, note)
    names = _fitted(weights, spec, note)
    if weights.tensors is None and all(old == new for old, new in names.items()):
        yield spec, path
        return
    tensors = weights.tensors or read_checkpoint(path).tensors
    with tempfile.TemporaryDirectory(prefix="pnc-") as folder:
        file = Path(folder) / f"{path.stem}.safetensors"
        write({new: tensors[old] for old, new in names.items()}, file)
        yield spec, file


def title(fit: Fit) -> str:
    """The architecture with its options, and the repository that publishes it."""
    return named(fit.architecture, fit.options) + (f" ({fit.published.origin})" if fit.published else "")


def named(architecture: str, options: Mapping[str, object]) -> str:
    """The architecture with its options as the command line takes them."""
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in options.items()}
    return " ".join([architecture, *(f"{name}={value}" for name, value in values.items())])


def _found(weights: Weights, spec: Path) -> tuple[Fit, Facts]:
    result = weights.identify()
    if result.chosen is None:
        several = f"several ({', '.join(title(fit) for fit in result.fits[:4])})" if result.fits else "none"
        raise Unfit(
            f"weights: expected one architecture for these tensors, got {several}; give --architecture and --set, or "
            f"describe the network in {spec.name}",
            result,
        )
    return result.chosen, result.facts


def _fused(path: Path, weights: Weights, spec: NetworkSpec, note: Callable[[str], object]) -> Weights:
    """Branches of a RepVGG become one convolution a block where the network is wanted so."""
    if spec.options.get("fused") is not True:
        return weights
    fit = compare(replace(spec, options=spec.options | {"fused": False}), weights.shapes, ordered=weights.ordered)
    if isinstance(fit, Near):
        return weights
    tensors = weights.tensors or read_checkpoint(path).tensors
    single = plain.fused({fit.key_map[name]: tensor for name, tensor in tensors.items()})
    note("fused the branches of each block into one convolution")
    return Weights({name: tuple(t.shape) for name, t in single.items()}, ordered=False, tensors=single)


def _fitted(weights: Weights, spec: NetworkSpec, note: Callable[[str], object]) -> dict[str, str]:
    """The network's name of each tensor by its name in the file."""
    try:
        fit = compare(spec, weights.shapes, ordered=weights.ordered)
    except UnknownArchitecture:
        return {name: name for name in weights.shapes}  # the service may know more
    if isinstance(fit, Near):
        raise Unfit(_unfit(spec, fit), weights.identify(spec.input_size))
    if fit.renamed:
        how = f"names of {fit.published.origin}" if fit.published else _HOW[fit.how]
        note(f"renamed {len(fit.renamed)} tensors: {how}")
    return fit.key_map


def _unfit(spec: NetworkSpec, near: Near) -> str:
    return (
        f"weights: expected the tensors of {named(spec.architecture, spec.options)} with {len(spec.classes)} classes, "
        f"got others: missing {_some(near.missing)}; unexpected {_some(near.unexpected)}; of another shape "
        f"{_some(near.other)}; give another --architecture, or none to have it found"
    )


def _fields(fit: Fit, facts: Facts, wanted: Wanted) -> dict[str, Any]:
    """Fields of the description that the fit tells; the others have to be given."""
    found = fit.fields(facts)
    needed = ("classes", "input_size") if wanted.scaling_later else ("classes", "input_size", "mean", "std")
    lacking = [name for name in needed if name not in found and wanted.fields.get(name) is None]
    if lacking:
        options = " ".join(f"--{name.replace('_', '-')}" for name in lacking)
        raise ConfigError(
            f"{named(fit.architecture, fit.options)} with {facts.classes} classes: expected {', '.join(lacking)} as in "
            f"training, got none; give {options}"
        )
    return found


def _some(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else "none"


def _new_names(path: Path | None, names: list[str]) -> dict[str, str]:
    if path is None:
        return {name: name for name in names}
    value = read_object(path, "new names by old ones")
    if not all(new is None or (isinstance(new, str) and new) for new in value.values()):
        raise ConfigError(f"{path}: expected an object with new names by old ones, got another value")
    found = renamed(value, names)
    if len(set(found.values())) < len(found):
        raise ConfigError(f"{path}: expected another new name for each tensor, got one name for several")
    return found
