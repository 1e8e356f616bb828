"""Read images from files of this machine, for the commands that need no service."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from app.datasets.images import decode_image
from pnc_client.sources import Images, Item, Options, Skipped, SourceError, open_images
from pnc_core.errors import DataError
from pnc_core.images import ImageSet
from pnc_core.preprocessing import Geometry


def read_images(
    path: Path | str,
    classes: Sequence[str],
    geometries: Sequence[Geometry],
    step: Callable[[int], None] = lambda count: None,
    *,
    options: Options | None = None,
    labelled: bool = True,
    note: Callable[[str], object] = lambda text: None,
) -> ImageSet:
    """Read the images of some classes; images of other classes are skipped without decoding.

    An image that cannot be decoded costs only its row.

    Args:
        path: Any source of `pnc_client.sources.open_images`.
        classes: Names of the classes, in the order of the labels.
        geometries: Geometries of the networks that see the images, see `geometries_of`. `images` of the result has
            the first one, `fitted` the others.
        step: Called with the number of images after each image.
        options: Choices where the source has several splits, columns or names.
        labelled: False: every image is read, and labels are ignored and may be missing.
        note: Told how many images are left out, and why the first one is.

    Raises:
        DataError: the source cannot be read, labels are missing, or no image of a class that the source has can be
            decoded; the message names the first file.
        OSError: a file cannot be read.
    """
    try:
        source = open_images(path, options)
        if labelled and source.classes is None:
            raise DataError(
                f"{path}: expected images with labels, got images without; name their column with --label-column, put "
                "the images into one folder per class, or clone without labels (`pnc clone --set labels=false`)"
            )
        return _decoded(path, source, classes, geometries, step, labelled, note)
    except SourceError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def _decoded(
    path: Path | str, source: Images, classes: Sequence[str], geometries: Sequence[Geometry],
    step: Callable[[int], None], labelled: bool, note: Callable[[str], object],
) -> ImageSet:  # fmt: skip
    labels = {name: label for label, name in enumerate(classes)}
    images: list[list[Tensor]] = []
    found: list[int] = []
    bad: dict[str, str] = {}
    for item in _wanted(source, labels, labelled):
        try:
            views = decode_image(item.raw, geometries, item.name)
        except DataError as error:
            source.skip(item.name, str(error).removeprefix(f"{item.name}: "))
            bad.setdefault(item.label or "", str(error))
            continue
        images.append([torch.from_numpy(view) for view in views])
        found.append(labels[item.label] if labelled and item.label else 0)
        step(len(found))
    lost = [error for name, error in bad.items() if not labelled or labels[name] not in found]
    if lost and (labelled or not images):
        raise DataError(f"{path}: expected an image of every class that can be decoded, got none of one: {lost[0]}")
    if not images:
        raise DataError(f"{path}: expected images of the classes {list(classes)[:20]}, got none; check the class names")
    if source.lost:
        note(_left_out(source.lost))
    plain, *others = (torch.stack(view) for view in zip(*images, strict=True))
    fitted = dict(zip(geometries[1:], others, strict=True))
    return ImageSet(plain, torch.tensor(found, dtype=torch.int64), tuple(classes), fitted)


def _wanted(source: Images, labels: dict[str, int], labelled: bool) -> Iterator[Item]:
    return (item for item in source if not labelled or item.label in labels)


def _left_out(lost: Sequence[Skipped]) -> str:
    return f"{len(lost):,} images are left out; the first is {lost[0].name}: {lost[0].reason}"
