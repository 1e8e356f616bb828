"""Other names for the classes of a source: a list, or a table of old and new names or of files and classes."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pnc_client.sources.found import NO_LABEL, Images, Item, SourceError, classes_of
from pnc_core.spelling import normal_name

_FILES = ("file_name", "filename", "file", "image", "image_id", "path", "id")
_LABELS = ("label", "labels", "class", "class_name", "category", "breed", "target", "name")
"""Titles of columns of files and of classes."""


@dataclass(frozen=True)
class Naming:
    """Names for classes.

    Args:
        names: Names in the order of the labels.
        table: New name by old name, or class by file; an empty new name leaves a class out.
    """

    names: Sequence[str] = ()
    table: Mapping[str, str] | None = None


def read_naming(text: str) -> Naming:
    """Names separated by commas, or a file: one name a line, or a CSV with two columns, old and new name.

    Raises:
        SourceError: the file has another form.
    """
    path = Path(text)
    if not path.is_file():
        return Naming([normal_name(name.strip()) for name in text.split(",")])
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, _dialect(path)) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"--classes: expected a text file in UTF-8, got {error}: {path}") from None
    if not rows:
        raise SourceError(f"--classes: expected names of classes, got an empty file: {path}")
    if all(len(row) == 1 for row in rows):
        return Naming([normal_name(name) for (name,) in rows])
    if any(len(row) < 2 for row in rows):
        short = next(row for row in rows if len(row) < 2)
        raise SourceError(f"--classes: expected two columns, old and new name, got {short}: {path}")
    key, value = _columns(rows[0])
    has_titles = rows[0][key].lower() in _FILES and rows[0][value].lower() in _LABELS
    rows = rows[1:] if has_titles else rows
    return Naming(table={normal_name(row[key]): normal_name(row[value]) for row in rows if len(row) > max(key, value)})


def renamed(images: Images, naming: Naming) -> Images:
    """The same images under other classes.

    Raises:
        SourceError: the names do not fit the source's classes or files.
    """
    if naming.table is None:
        return _listed(images, naming.names)
    if images.classes is None:
        return _by_file(images, naming.table)
    known = {name: _new(naming.table, name, number) for number, name in enumerate(images.classes)}
    if not any(name in naming.table or str(number) in naming.table for number, name in enumerate(images.classes)):
        keys = ", ".join(list(naming.table)[:3])
        raise SourceError(
            f"--classes: expected names of the classes {images.classes[:3]}, got {keys}; correct the file"
        )
    classes = list(dict.fromkeys(name for name in known.values() if name))

    def items() -> Iterator[Item]:
        for item in images:
            new = known[item.label or ""]
            if new:
                yield Item(item.name, new, item.raw)
            else:
                images.skip(item.name, f"the file of --classes leaves the class {item.label} out")

    return Images(classes, items(), images.skipped, images.notes)


def _listed(images: Images, names: Sequence[str]) -> Images:
    """Names in the order of the labels."""
    old = images.classes
    if old is None:
        raise SourceError(
            f"--classes: expected images with labels, got images without and {len(names)} names; leave it"
        )
    if not all(name.isdecimal() for name in old) and len(old) != len(names):
        raise SourceError(f"--classes: expected {len(old)} names, one for each of {old[:5]}, got {len(names)}")
    numbers = {name: int(name) if name.isdecimal() else place for place, name in enumerate(old)}
    beyond = [name for name, number in numbers.items() if number >= len(names)]
    if beyond:
        raise SourceError(
            f"--classes: expected a name for the label {beyond[0]}, got {len(names)} names; name every class"
        )
    items = (Item(item.name, names[numbers[item.label or ""]], item.raw) for item in images)
    return Images([*names], items, images.skipped, images.notes)


def _by_file(images: Images, table: Mapping[str, str]) -> Images:
    """Classes by file: by path, name, or name without ending."""
    classes = classes_of(name for name in table.values() if name)

    def items() -> Iterator[Item]:
        for item in images:
            base = item.name.rpartition("/")[2]
            keys = (item.name, base, base.rpartition(".")[0])
            label = next((table[normal_name(key)] for key in keys if normal_name(key) in table), "")
            if label:
                yield Item(item.name, label, item.raw)
            else:
                images.skip(item.name, f"{NO_LABEL} in the file of --classes")

    return Images(classes, items(), images.skipped, images.notes)


def _new(table: Mapping[str, str], name: str, number: int) -> str:
    return table.get(name, table.get(str(number), name))


def _dialect(path: Path) -> type[csv.Dialect]:
    return csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel


def _columns(titles: Sequence[str]) -> tuple[int, int]:
    """Places of the two columns that are read."""
    plain = [title.lower() for title in titles]
    key = next((plain.index(name) for name in _FILES if name in plain), 0)
    value = next((plain.index(name) for name in _LABELS if name in plain and plain.index(name) != key), None)
    return key, (1 if key == 0 else 0) if value is None else value
