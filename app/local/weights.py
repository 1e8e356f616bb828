"""Weights of other formats become safetensors here, on the user's machine, before anything is sent."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PICKLED = frozenset({".pth", ".pt", ".bin", ".ckpt"})


@contextmanager
def as_safetensors(path: Path) -> Iterator[Path]:
    """The file itself, or a converted copy that is gone after the block.

    Raises:
        TensorFileError: a pickled file holds anything but tensors.
        OSError: it cannot be read.
    """
    if path.suffix.lower() not in PICKLED:
        yield path
        return
    import safetensors.torch  # not needed, and perhaps not there, where files are safetensors already

    from app.local.pickled import read_pickled

    with tempfile.TemporaryDirectory(prefix="pnc-") as folder:
        converted = Path(folder) / f"{path.stem}.safetensors"
        safetensors.torch.save_file(read_pickled(path), converted)
        yield converted
