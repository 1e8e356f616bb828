"""From the paths of files to classes: one folder a class, at any depth, perhaps below folders of splits.

The rule is that of torchvision's ImageFolder: the first folder names the class of all images below it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pnc_client.sources.found import SYSTEM, Skipped, choose, is_image_name, is_system_file, suffix_of
from pnc_core.formats import REFUSED_SUFFIXES
from pnc_core.spelling import normal_name

SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""Names of splits, and the ones that are shown."""


@dataclass(frozen=True)
class Layout:
    """Paths of images with their classes."""

    classes: list[str] | None
    """Names in order; none: the images lie in no folders."""
    placed: list[tuple[str, str | None]]
    """Path and class of every image, in the order of the classes and paths."""
    skipped: list[Skipped]
    notes: list[str]


def arrange(paths: Iterable[str], split: str | None = None) -> Layout:
    """Find the classes of files.

    Args:
        paths: Paths below the source, with slashes.
        split: The wanted split, `all`, or none if there is only one.

    Raises:
        SourceError: there are several splits, and none is chosen.
    """
    skipped: list[Skipped] = []
    images: list[str] = []
    for path in sorted(paths):
        one = _skipped(path)
        images.append(path) if one is None else skipped.append(one)
    depth = _wrapping([image.split("/") for image in images])
    splits = _splits([image.split("/")[depth:] for image in images])
    wanted = choose("splits", list(dict.fromkeys(splits.values())), split, "--split")
    if not splits:
        return _by_folder(images, skipped, depth, [])
    chosen = [image for image in images if wanted is None or splits[image.split("/")[depth]] == wanted]
    notes = [taken_splits(wanted, len(images) - len(chosen))]
    return _by_folder(chosen, skipped, depth + 1, notes)


def taken_splits(wanted: str | None, others: int) -> str:
    """A note of the split that is read."""
    return f"split {wanted}; {others:,} images of other splits are left out" if wanted else "all splits together"


def _by_folder(images: Sequence[str], skipped: list[Skipped], depth: int, notes: list[str]) -> Layout:
    labels = {image: normal_name(parts[depth]) for image in images if len(parts := image.split("/")) > depth + 1}
    if not labels:
        return Layout(None, [(image, None) for image in images], skipped, notes)
    loose = [image for image in images if image not in labels]
    skipped += [Skipped(image, "it lies beside the folders of the classes") for image in loose]
    skipped += _empty_folders(skipped, {*labels.values()}, depth)
    placed = sorted(labels.items(), key=lambda pair: (pair[1], pair[0]))
    return Layout(sorted({*labels.values()}), [*placed], skipped, notes)


def _skipped(path: str) -> Skipped | None:
    """Why a file is left out by its name."""
    if is_system_file(path):
        return Skipped(path, SYSTEM, harmless=True)
    if is_image_name(path):
        return None
    end = suffix_of(path)
    if end in REFUSED_SUFFIXES:
        return Skipped(path, f"it is {REFUSED_SUFFIXES[end]}, which is not read; convert it to PNG or JPEG")
    return Skipped(path, f"its name ends with {end}, as no image does" if end else "its name has no ending", True)


def _empty_folders(skipped: Iterable[Skipped], classes: set[str], depth: int) -> list[Skipped]:
    """Folders beside those of the classes, of whose files none is read: a class would vanish without a word."""
    files = (one.name.split("/") for one in skipped if one.reason != SYSTEM and not one.name.endswith("/"))
    folders = {parts[depth] for parts in files if len(parts) > depth + 1}
    empty = sorted(name for name in folders if normal_name(name) not in classes)
    return [Skipped(f"{name}/", "a folder without an image that is read") for name in empty]


def _wrapping(images: Sequence[Sequence[str]]) -> int:
    """How many folders lie around all classes or splits: `photos/cat/1.png` and `photos/dog/1.png` have one."""
    depth = 0
    while images and all(len(parts) > depth + 1 for parts in images):
        names = {parts[depth] for parts in images}
        if len(names) > 1 or names <= SPLITS.keys():
            return depth
        depth += 1
    return 0  # all images lie in one folder: the first folder is their class


def _splits(images: Sequence[Sequence[str]]) -> dict[str, str]:
    """Names of splits by folder, if the first folders are splits and not classes."""
    firsts = {parts[0] for parts in images if len(parts) > 1}
    are_names = bool(firsts) and all(name.lower() in SPLITS for name in firsts)
    nested = any(len(parts) > 2 for parts in images)
    if not are_names or any(len(parts) < 2 for parts in images) or not (nested or len(firsts) > 1):
        return {}
    return {name: SPLITS[name.lower()] for name in sorted(firsts)}
