"""Give the tensors of a file the names of a network's own tensors."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from pnc_core.config import NetworkSpec
from pnc_core.errors import WeightsMismatch
from pnc_core.graph.identify import Near, compare
from pnc_core.networks.checkpoint import read_checkpoint, write
from pnc_core.networks.files import is_ready
from pnc_core.tensorfile import read_header


def fitted(
    path: Path, spec: NetworkSpec, folder: Path, note: Callable[[str], object], unused: tuple[str, ...] = ()
) -> Path:
    """A safetensors file with a network's weights under the network's names.

    Args:
        path: Any file of weights.
        spec: The network.
        folder: Receives the converted file.
        note: Told each change.
        unused: First parts of names of tensors that the network does not have, such as those of auxiliary heads.

    Returns:
        The file itself if nothing in it has to change.

    Raises:
        WeightsMismatch: the tensors are not those of the network.
        TensorFileError: the file holds other things than the weights of one network.
    """
    if is_ready(path):
        shapes = {name: info.shape for name, info in read_header(path).tensors.items()}
        if all(old == new for old, new in _names(spec, shapes, ordered=False).items()):
            return path
    found = read_checkpoint(path)
    for text in found.notes:
        note(text)
    tensors = {name: tensor for name, tensor in found.tensors.items() if not name.startswith(unused)}
    return fitted_tensors(tensors, spec, folder / f"{path.stem}.safetensors", ordered=found.ordered)


def fitted_tensors(tensors: Mapping[str, Tensor], spec: NetworkSpec, file: Path, *, ordered: bool) -> Path:
    """Write tensors under the names of a network.

    Args:
        tensors: By their names at the source.
        spec: The network.
        file: The safetensors file to write.
        ordered: Whether the tensors come in the network's order.

    Raises:
        WeightsMismatch: the tensors are not those of the network.
    """
    names = _names(spec, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, ordered=ordered)
    write({new: tensors[old] for old, new in names.items()}, file)
    return file


def _names(spec: NetworkSpec, shapes: dict[str, tuple[int, ...]], *, ordered: bool) -> dict[str, str]:
    fit = compare(spec, shapes, ordered=ordered)
    if isinstance(fit, Near):
        first = ", ".join([*fit.missing, *fit.unexpected, *fit.other][:4])
        raise WeightsMismatch(
            f"weights: expected the tensors of {spec.architecture} with {len(spec.classes)} classes, got others "
            f"({first}); give another architecture or file"
        )
    return fit.key_map
