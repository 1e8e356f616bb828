"""Files of weights, told apart by their first bytes; every kind that torch wrote becomes safetensors.

This module imports no torch: a file that is safetensors already needs none.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

from pnc_core.errors import TensorFileError
from pnc_core.networks.names import own_names, uncounted
from pnc_core.tensorfile import read_header

Kind = Literal["safetensors", "zip", "legacy"]
"""A safetensors file, the zip archive that `torch.save` writes, or the pickles that it wrote before torch 1.6."""
Take = Literal["plain", "ema"]
"""The trained weights, or their exponential moving average."""
TAKES: tuple[Take, ...] = get_args(Take)

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of every file in torch's legacy form: its magic number."""
_READY = frozenset({"F32", "I64", "I32", "I16", "I8", "U8", "BOOL"})
"""Dtypes that are sent as they are."""
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x80", "a pickle that torch.save did not write", "save model.state_dict() with torch.save"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file, perhaps of Keras", "save a PyTorch network's state_dict() with torch.save"),
    (b"version https://git-lfs", "a Git LFS pointer", "run git lfs pull for the file itself"),
    (b"<", "a web page", "download the file itself"),
)
_TAR = b"ustar", 257


def kind_of(path: Path) -> Kind:
    """Tell the kind of a file of weights by its first bytes; its name does not count.

    Raises:
        TensorFileError: it is neither safetensors nor written by `torch.save`.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(_MAGIC):
        return "legacy"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    got, advice = _other(head)
    raise TensorFileError(f"{path}: expected weights from torch.save or safetensors, got {got}; {advice}")


def _other(head: bytes) -> tuple[str, str]:
    if head[_TAR[1] :].startswith(_TAR[0]):
        return "a tar archive", "unpack it first"
    if not head:
        return "an empty file", "save or download it again"
    for mark, got, advice in _OTHERS:
        if head.startswith(mark):
            return got, advice
    return f"a file that begins with {head[:8].hex(' ')}", "save model.state_dict() with torch.save"


@contextmanager
def as_safetensors(
    path: Path, take: Take | None = None, note: Callable[[str], object] = lambda text: None
) -> Iterator[Path]:
    """A safetensors file with the weights of any checkpoint, under the network's own names.

    Args:
        path: A file of any kind that `kind_of` knows.
        take: Plain weights or their moving average, where the file has both; by default the plain ones.
        note: Told each change, such as a dtype that was widened.

    Returns:
        The file itself if nothing in it has to change, else a converted copy that is gone after the block.

    Raises:
        TensorFileError: the file is damaged, or holds other things than the tensors of one network.
        OSError: it cannot be read.
    """
    if is_ready(path):
        yield path
        return
    checkpoint = import_module("pnc_core.networks.checkpoint")
    read = checkpoint.read_checkpoint(path, take)
    for text in read.notes:
        note(text)
    with tempfile.TemporaryDirectory(prefix="pnc-") as folder:
        converted = Path(folder) / f"{path.stem}.safetensors"
        checkpoint.write(read.tensors, converted)
        yield converted


def is_ready(path: Path) -> bool:
    """Whether a file is safetensors with the names, dtypes and counters of a network's state dict.

    Raises:
        TensorFileError: the file is damaged, or no file of weights.
        OSError: it cannot be read.
    """
    if kind_of(path) != "safetensors":
        return False
    tensors = read_header(path).tensors
    kept = own_names(tensors.keys())
    same = list(kept.items()) == [(name, name) for name in tensors]
    return same and not uncounted(tensors.keys()) and all(info.dtype in _READY for info in tensors.values())
