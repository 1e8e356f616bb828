"""Convert weights to safetensors on the user's machine before they are sent."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PICKLED = frozenset({".pth", ".pt", ".bin", ".ckpt"})


@contextmanager
def as_safetensors(path: Path) -> Iterator[Path]:
    """The path itself if the file is safetensors, or else a converted copy that exists within the block.

    Raises:
        TensorFileError: a pickled file holds no tensors, or values other than tensors.
        OSError: the file cannot be read.
    """
    if path.suffix.lower() not in PICKLED:
        yield path
        return
    import safetensors.torch  # optional: not installed with the base install

    from app.local.pickled import read_pickled

    with tempfile.TemporaryDirectory(prefix="pnc-") as folder:
        converted = Path(folder) / f"{path.stem}.safetensors"
        safetensors.torch.save_file(read_pickled(path), converted)
        yield converted
