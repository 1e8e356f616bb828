"""Folders as torchvision keeps them: MNIST and its relatives, CIFAR-10 and CIFAR-100."""

import gzip
import io
import math
import pickle  # noqa: TID251 - CIFAR's files are pickles; `_Plain` takes numbers and texts from them and runs nothing
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pnc_client.sources.arrays import channels_last
from pnc_client.sources.found import Images, Item, SourceError, choose
from pnc_client.sources.png import png_of

_IDX = re.compile(r"(?:(?P<set>.+)-)?(?P<split>train|t10k|test)-images[-.]idx3-ubyte(?:\.gz)?\Z")
_GARMENTS = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
]  # fmt: skip
"""Classes of Fashion-MNIST, as torchvision names them."""
_SIDE, _BINARY_SIDE = 32, 32 * 32 * 3
_TEN, _HUNDRED = "cifar-10-batches-py", "cifar-100-python"
FOLDERS = (_TEN, _HUNDRED)


def torchvision_images(root: Path, split: str | None, label: str | None = None) -> Images | None:
    """Images of a folder that torchvision has filled; none: it is no such folder.

    Args:
        root: The root that a data set of torchvision has, or the folder of the files.
        split: The wanted split, or none if there is only one.
        label: For CIFAR-100: `fine_labels` (none: these) or `coarse_labels`.

    Raises:
        SourceError: no split is chosen, or a file is damaged.
    """
    cifar = [path for name in FOLDERS for path in ((root,) if root.name == name else (root / name,)) if path.is_dir()]
    files = [path for folder in (root, *_below(root)) for path in sorted(folder.iterdir()) if _IDX.match(path.name)]
    sets = {path.parent for path in files}
    if len(cifar) + len(sets) > 1:
        names = ", ".join(sorted(str(path.relative_to(root)) for path in {*cifar, *sets}))
        raise SourceError(f"{root}: expected one data set, got {names}; give the folder of one")
    if cifar:
        return _cifar(cifar[0], split, label)
    return _idx(files, split) if files else None


def _below(root: Path) -> Iterator[Path]:
    """Folders like `MNIST/raw`."""
    for pattern in ("raw", "*/raw"):
        yield from (path for path in sorted(root.glob(pattern)) if path.is_dir())


def _idx(files: Sequence[Path], split: str | None) -> Images:
    splits: dict[str, Path] = {}
    for path in files:
        found = _IDX.match(path.name)
        assert found is not None
        name = "test" if found["split"] == "t10k" else found["split"]
        splits.setdefault(f"{found['set']}-{name}" if found["set"] else name, path)
    wanted = choose("splits", list(splits), split, "--split")
    chosen = list(splits.values()) if wanted is None else [splits[wanted]]
    tags = [number for path in chosen for number in _idx_labels(path)]
    is_fashion = "fashion" in str(files[0].parent).lower()
    classes = _GARMENTS if is_fashion else [str(number) for number in range(max(tags, default=-1) + 1)]
    return Images(classes, _idx_items(chosen, classes), notes=[f"files {', '.join(path.name for path in chosen)}"])


def _idx_items(files: Sequence[Path], classes: Sequence[str]) -> Iterator[Item]:
    for path in files:
        labels = _idx_labels(path)
        with _opened(path) as file:
            count, height, width = _idx_shape(file, path, 3)
            if count != len(labels):
                raise SourceError(f"{path}: expected {len(labels)} images, one a label, got {count}; fetch it again")
            for number, label in enumerate(labels):
                raw = file.read(height * width)
                if len(raw) < height * width:
                    raise SourceError(f"{path}: expected {count} images, got {number} whole ones; fetch it again")
                yield Item(f"{path.name}[{number}]", classes[label], png_of(raw, height, width, 1))


def _idx_labels(images: Path) -> bytes:
    names = [images.name.replace("images", "labels").replace("idx3", "idx1")]
    names += [names[0].removesuffix(".gz"), f"{names[0]}.gz"]
    path = next((images.with_name(name) for name in names if images.with_name(name).is_file()), None)
    if path is None:
        raise SourceError(f"{images}: expected its labels in {names[0]} beside it, got none; fetch the file")
    with _opened(path) as file:
        (count,) = _idx_shape(file, path, 1)
        content: bytes = file.read(count)
        return content


def _idx_shape(file: BinaryIO, path: Path, dimensions: int) -> tuple[int, ...]:
    head = file.read(4 + 4 * dimensions)
    if head[:4] != bytes((0, 0, 8, dimensions)) or len(head) < 4 + 4 * dimensions:
        raise SourceError(f"{path}: expected an idx file of bytes, got {head[:4].hex()}; fetch it again")
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", head[4:])
    if math.prod(shape) > 2**36:
        raise SourceError(f"{path}: expected fewer than 64 GiB of pixels, got the shape {shape}; fetch it again")
    return shape


def _opened(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _cifar(folder: Path, split: str | None, label: str | None) -> Images:
    ten = folder.name == _TEN
    train = sorted(path for path in folder.glob("data_batch_[0-9]")) if ten else [folder / "train"]
    files = {"train": train, "test": [folder / ("test_batch" if ten else "test")]}
    present = {name: found for name, paths in files.items() if (found := [path for path in paths if path.is_file()])}
    if not present:
        raise SourceError(f"{folder}: expected the files of {folder.name}, got none; fetch them with torchvision")
    wanted = choose("splits", list(present), split, "--split")
    chosen = [path for name, paths in present.items() if wanted in (None, name) for path in paths]
    field = "labels" if ten else (label or "fine_labels")
    meta = _unpickled(folder / ("batches.meta" if ten else "meta"))
    classes = meta.get("label_names" if ten else field.replace("labels", "label_names"))
    if not isinstance(classes, list):
        raise SourceError(f"{folder}: expected names for {field!r}, got {', '.join(map(str, meta))}; fetch it again")
    notes = [f"files {', '.join(path.name for path in chosen)}"]
    return Images([str(name) for name in classes], _cifar_items(chosen, classes, field), notes=notes)


def _cifar_items(files: Sequence[Path], classes: Sequence[str], field: str) -> Iterator[Item]:
    for path in files:
        batch = _unpickled(path)
        labels, data = batch.get(field), batch.get("data")
        pixels = data.raw if isinstance(data, _Array) else b""
        if not isinstance(labels, list) or len(pixels) != _BINARY_SIDE * len(labels):
            raise SourceError(f"{path}: expected {_BINARY_SIDE} bytes of pixels and one of {field} an image; fetch it")
        for number, label in enumerate(labels):
            raw = channels_last(pixels[number * _BINARY_SIDE : (number + 1) * _BINARY_SIDE], 3, 1)
            yield Item(f"{path.name}[{number}]", classes[label], png_of(raw, _SIDE, _SIDE, 3))


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        value = _Plain(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise SourceError(f"{path}: expected a file of CIFAR, got: {error}; fetch it again") from None
    if not isinstance(value, dict):
        raise SourceError(f"{path}: expected a file of CIFAR, got other values; fetch it again")
    return value


@dataclass
class _Array:
    """Stands for an array of numpy: its bytes are kept, and nothing else is done."""

    raw: bytes = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        content = state[4]
        self.raw = content.encode("latin1") if isinstance(content, str) else bytes(content)


class _Type:
    """Stands for a type of numpy."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _Plain(pickle.Unpickler):
    """Takes numbers, texts, lists and the bytes of arrays from a pickle. Every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for one of the three names that a pickled array needs."""
        found = {"_reconstruct": lambda *_: _Array(), "ndarray": _Array, "dtype": _Type, "encode": _encoded}.get(name)
        if found is None or module.partition(".")[0] not in ("numpy", "_codecs"):
            raise pickle.UnpicklingError(f"expected numbers and texts, got {module}.{name}")
        return found


def _encoded(text: str, _: str = "") -> bytes:
    return text.encode("latin1")
