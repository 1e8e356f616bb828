"""WebDataset: tar archives in which files with one name and several endings are one sample.

References:
    github.com/webdataset/webdataset, README: the key of a sample is its path up to the first dot of the file's name.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pnc_client.sources.found import NO_LABEL, Images, Item, choose, classes_of, is_image_name
from pnc_client.sources.layout import taken_splits
from pnc_client.sources.tables import split_of
from pnc_client.sources.trees import tar_members
from pnc_core.spelling import normal_name

_LABELS = ("cls", "label", "class")
"""Endings of files that hold one label."""
_FIELDS = ("label", "labels", "cls", "class", "class_name", "category", "fine_label", "target")
_LOOKED_AT = 2000
"""Files of an archive that are looked at to tell a WebDataset from an archive of folders."""


def is_webdataset(path: Path) -> bool:
    """Whether a tar archive has a label file beside an image with the same key."""
    images, labels = set[str](), set[str]()
    for number, (member, _) in enumerate(tar_members(path)):
        key, end = _key(member.name)
        if is_image_name(member.name):
            images.add(key)
        elif end in (*_LABELS, "json"):
            labels.add(key)
        if images & labels:
            return True
        if number > _LOOKED_AT:
            return False
    return False


def shard_images(shards: Sequence[Path], split: str | None, field: str | None = None) -> Images:
    """Images of the shards of a WebDataset; they are read twice, and one sample is held at a time.

    Args:
        shards: Tar archives.
        split: The wanted split, which the names of the shards begin with; none if there is only one.
        field: Field of the labels in `.json` files, or ending of the label files; none: the usual ones.

    Raises:
        SourceError: no split is chosen, or an archive is damaged.
    """
    splits = {shard: split_of(shard) for shard in shards}
    wanted = choose("splits", sorted({name for name in splits.values() if name}), split, "--split")
    chosen = [shard for shard in shards if wanted in (None, splits[shard])]
    labels = {label for sample in _samples(chosen) if (label := _label(sample, field)) is not None}
    classes = classes_of(labels) if labels else None
    notes = [f"a WebDataset of {len(chosen)} shards", *([taken_splits(wanted, 0)] if wanted else [])]
    images = Images(classes, [], notes=notes)
    images.items = _items(images, chosen, field)
    return images


def _items(images: Images, shards: Sequence[Path], field: str | None) -> Iterator[Item]:
    for sample in _samples(shards):
        pictures = {name: raw for name, raw in sample.items() if is_image_name(name)}
        label = _label(sample, field)
        if not pictures:
            images.skip(next(iter(sample)), "its sample has no image file that is read")
        elif images.classes is not None and label is None:
            images.skip(next(iter(pictures)), NO_LABEL)
        else:
            first, *others = pictures
            yield Item(first, label, pictures[first])
            for name in others:
                images.skip(name, f"its sample has another image, {first}")


def _samples(shards: Sequence[Path]) -> Iterator[dict[str, bytes]]:
    """Files of each sample by name; a sample's files follow one another."""
    for shard in shards:
        last, sample = "", dict[str, bytes]()
        for member, read in tar_members(shard):
            key, _ = _key(member.name)
            if key != last and sample:
                yield sample
                sample = {}
            last = key
            sample[member.name] = read()
        if sample:
            yield sample


def _label(sample: dict[str, bytes], field: str | None) -> str | None:
    by_end = {_key(name)[1]: raw for name, raw in sample.items()}
    raw = next((by_end[end] for end in ((field,) if field else _LABELS) if end in by_end), None)
    if raw is not None:
        text = raw.decode("utf-8", "replace").strip()
        return normal_name(text) or None
    try:
        values: Any = json.loads(by_end.get("json", b"{}"))
    except (ValueError, RecursionError):
        return None
    fields = (field,) if field else _FIELDS
    value = next((values[name] for name in fields if name in values), None) if isinstance(values, dict) else None
    return normal_name(str(value)) if isinstance(value, str | int) and value not in ("", -1) else None


def _key(name: str) -> tuple[str, str]:
    """Key and ending of a file: both sides of the first dot in its name."""
    folder, slash, base = name.rpartition("/")
    start, _, end = base.partition(".")
    return f"{folder}{slash}{start}", end.lower()
