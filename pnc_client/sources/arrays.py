"""Images of numpy's files: `.npz` with pixels and labels, and `.npy` with pixels alone.

A file is read image by image, without numpy. Objects in it are refused, since reading them would run code.
"""

import ast
import math
import re
import struct
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pnc_client.sources.found import Images, Item, SourceError, choose, classes_of
from pnc_client.sources.layout import SPLITS
from pnc_client.sources.png import png_of

_IMAGES, _LABELS = ("images", "image", "x", "data", "imgs", "pixels"), ("labels", "label", "y", "targets", "classes")
_WORDS = re.compile(r"[a-zA-Z]+")
_INTEGERS = {"i1": "b", "u1": "B", "b1": "?", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"}
MOST_LABELS = 50_000_000


@dataclass(frozen=True)
class Header:
    """Header of a `.npy` file."""

    shape: tuple[int, ...]
    kind: str
    """Type without byte order, such as `u1`."""
    order: str
    """`<`, `>` or `|`."""

    @property
    def item_bytes(self) -> int:
        """Bytes of one number."""
        return int(self.kind[1:]) * (4 if self.kind[0] == "U" else 1)


def array_images(path: Path, split: str | None) -> Images:
    """Images of a `.npz` or `.npy` file: uint8 or uint16, (N, H, W), (N, H, W, C) or (N, C, H, W), and labels (N,).

    Raises:
        SourceError: the arrays have other types or shapes, or no split is chosen.
    """
    stack = ExitStack()
    if path.suffix.lower() == ".npy":
        file = cast(BinaryIO, stack.enter_context(path.open("rb")))
        return Images(None, _pixels(path.name, read_header(file, path.name), file, None, stack))
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"{path}: expected a .npz file, got {error}; save it again with numpy.savez") from None
    headers = {}
    for entry in archive.namelist():
        with archive.open(entry) as member:
            headers[entry.removesuffix(".npy")] = read_header(cast(BinaryIO, member), entry)
    pictures, tags = _chosen(path, headers, split)
    labels = None
    if tags is not None:
        with archive.open(f"{tags}.npy") as member:
            labels = _labels(tags, read_header(cast(BinaryIO, member), tags), cast(BinaryIO, member))
    stream = cast(BinaryIO, stack.enter_context(archive.open(f"{pictures}.npy")))
    head = read_header(stream, pictures)
    if labels is not None and len(labels) != head.shape[0]:
        raise SourceError(f"{path}: expected one label an image, got {len(labels)} labels of {head.shape[0]} images")
    notes = [f"images from the array {pictures}, " + (f"labels from {tags}" if tags else "no labels")]
    classes = None if labels is None else classes_of(labels)
    return Images(classes, _pixels(pictures, head, stream, labels, stack), notes=notes)


def read_header(file: BinaryIO, name: str) -> Header:
    """The header of a `.npy` file, whose numbers follow.

    Raises:
        SourceError: it is none, or holds objects or columns first.

    References:
        numpy.lib.format, versions 1 to 3.
    """
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or len(start) < 8:
        raise SourceError(f"{name}: expected an array of numpy, got other bytes; save it with numpy.savez")
    length = struct.unpack("<H", file.read(2))[0] if start[6] == 1 else struct.unpack("<I", file.read(4))[0]
    if length > 2**16:
        raise SourceError(f"{name}: expected a short header, got {length} bytes; save it again")
    try:
        said = ast.literal_eval(file.read(length).decode("latin1").strip())
        kind, shape, columns_first = said["descr"], tuple(map(int, said["shape"])), said["fortran_order"]
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise SourceError(f"{name}: expected an array of numpy, got {error}; save it again") from None
    if not isinstance(kind, str) or kind[1:2] == "O":
        raise SourceError(f"{name}: expected numbers, got objects; save numbers or texts")
    if columns_first and sum(size > 1 for size in shape) > 1:
        raise SourceError(f"{name}: expected rows first, got columns first; save numpy.ascontiguousarray of it")
    return Header(shape, kind[1:], kind[0])


def _chosen(path: Path, headers: dict[str, Header], split: str | None) -> tuple[str, str | None]:
    """Names of the arrays of images and labels."""
    pictures = [name for name, head in headers.items() if len(head.shape) in (3, 4) and head.shape[0] > 0]
    splits = {name: found for name in pictures if (found := _split_in(name)) is not None}
    if splits:
        wanted = choose("splits", sorted(splits.values()), split, "--split")
        if wanted is None:
            raise SourceError(f"{path}: expected one split, got `all`; push each split as a data set of its own")
        pictures = [name for name, found in splits.items() if found == wanted]
    images = _first(pictures, _IMAGES) or (pictures[0] if len(pictures) == 1 else None)
    if images is None:
        arrays = ", ".join(f"{name} {head.shape}" for name, head in headers.items()) or "none"
        raise SourceError(f"{path}: expected one array of images (N, H, W, C), got {arrays}; call one `images`")
    count, part = headers[images].shape[0], _split_in(images)
    tags = [
        name for name, head in headers.items()
        if name != images and head.shape in ((count,), (count, 1)) and _split_in(name) == part
    ]  # fmt: skip
    return images, _first(tags, _LABELS) or (tags[0] if len(tags) == 1 else None)


def _split_in(name: str) -> str | None:
    return next((SPLITS[word] for word in map(str.lower, _WORDS.findall(name)) if word in SPLITS), None)


def _first(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The name with one of the usual words, the most usual first."""
    return next((name for word in usual for name in names if word in map(str.lower, _WORDS.findall(name))), None)


def _labels(name: str, head: Header, file: BinaryIO) -> list[str]:
    count = math.prod(head.shape)
    if count > MOST_LABELS:
        raise SourceError(f"{name}: expected at most {MOST_LABELS} labels, got {count}; split the file")
    raw = file.read(count * head.item_bytes)
    if head.kind[0] == "U":
        size, form = head.item_bytes, "utf-32-be" if head.order == ">" else "utf-32-le"
        return [raw[at : at + size].decode(form).rstrip("\0") for at in range(0, len(raw), size)]
    if head.kind[0] == "S":
        size = head.item_bytes
        return [raw[at : at + size].rstrip(b"\0").decode() for at in range(0, len(raw), size)]
    if head.kind not in _INTEGERS:
        raise SourceError(f"{name}: expected whole numbers or texts as labels, got {head.kind}; convert them")
    order = "<" if head.order == "|" else head.order
    return [str(int(value)) for value in struct.unpack(f"{order}{count}{_INTEGERS[head.kind]}", raw)]


def _pixels(name: str, head: Header, file: BinaryIO, labels: Sequence[str] | None, stack: ExitStack) -> Iterator[Item]:
    count, height, width, channels, first = _shape(name, head)
    size = height * width * channels * head.item_bytes
    with stack:
        for number in range(count):
            raw = file.read(size)
            if len(raw) < size:
                raise SourceError(f"{name}: expected {count} images, got the bytes of {number}; save it again")
            if head.kind == "b1":
                raw = bytes(255 * value for value in raw)
            if first:
                raw = channels_last(raw, channels, head.item_bytes)
            if head.kind == "u2" and (head.order == "<" or (head.order == "=" and sys.byteorder == "little")):
                raw = _swapped(raw)
            label = None if labels is None else labels[number]
            yield Item(f"{name}[{number}]", label, png_of(raw, height, width, channels, 8 * head.item_bytes))


def _shape(name: str, head: Header) -> tuple[int, int, int, int, bool]:
    """Images, rows, columns, channels, and whether the channels come first."""
    if head.kind not in ("u1", "u2", "b1"):
        raise SourceError(
            f"{name}: expected numbers of type uint8 or uint16, got {head.kind}; convert pixels from 0 to 1 with "
            "(255 * pixels).round().astype('uint8')"
        )
    shape = head.shape
    if len(shape) == 3:
        return (*shape, 1, False)
    if len(shape) == 4 and shape[3] in (1, 2, 3, 4):
        return (*shape, False)
    if len(shape) == 4 and shape[1] in (1, 3, 4):
        return shape[0], shape[2], shape[3], shape[1], True
    raise SourceError(f"{name}: expected (N, H, W), (N, H, W, C) or (N, C, H, W) of 1 to 4 channels, got {shape}")


def channels_last(raw: bytes, channels: int, size: int) -> bytes:
    """Pixels of one image whose channels come first, with channels last; `size` is the bytes of a number."""
    plane = len(raw) // channels
    mixed = bytearray(len(raw))
    for channel in range(channels):
        for byte in range(size):
            start = channel * plane
            mixed[channel * size + byte :: channels * size] = raw[start + byte : start + plane : size]
    return bytes(mixed)


def _swapped(raw: bytes) -> bytes:
    swapped = bytearray(len(raw))
    swapped[::2], swapped[1::2] = raw[1::2], raw[::2]
    return bytes(swapped)
