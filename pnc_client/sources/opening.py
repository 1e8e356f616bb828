"""Open any source of images: find its kind, its classes and its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pnc_client.sources import hub
from pnc_client.sources.arrays import array_images
from pnc_client.sources.found import Images, NoColumn, SourceError, choose, is_image_name, is_system_file
from pnc_client.sources.naming import Naming, read_naming, renamed
from pnc_client.sources.tables import parquet_images, split_of
from pnc_client.sources.torchvision import torchvision_images
from pnc_client.sources.trees import TARS, folder_images, tar_images, zip_images
from pnc_client.sources.webdataset import is_webdataset, shard_images
from pnc_core.spelling import MAX_LENGTH, is_class_name, normal_name

KINDS = (
    "a folder with one folder of images per class, a zip or tar archive of one, Parquet files, shards of a WebDataset, "
    ".npz, .npy, a folder of torchvision (MNIST, CIFAR), or hf://datasets/OWNER/NAME"
)


@dataclass(frozen=True)
class Options:
    """Choices where a source has several splits, columns or names."""

    split: str | None = None
    """`train`, `validation`, `test` or another split of the source; `all`; none if there is only one."""
    image_column: str | None = None
    """Column of the images in Parquet; none: it is recognised."""
    label_column: str | None = None
    """Column or field of the labels; `none`: images without labels; none: it is recognised."""
    classes: str | Sequence[str] | None = None
    """Names of the classes in the order of the labels, or a file of names, see `read_naming`."""


def open_images(what: str | Path, options: Options | None = None) -> Images:
    """Open a source of images.

    Args:
        what: A path, a pattern of paths with `*`, or `hf://datasets/...`.
        options: Choices.

    Raises:
        SourceError: there is no such source, it has no images, or a choice is missing.
        ModuleNotFoundError: a package that reads this kind is not installed.
    """
    chosen = options or Options()
    images = _opened(hub.fetched(what) if str(what).startswith(hub.PREFIX) else Path(what), chosen)  # type: ignore[arg-type]
    if chosen.classes is not None:
        given = chosen.classes
        images = renamed(images, read_naming(given) if isinstance(given, str) else Naming([*map(normal_name, given)]))
    odd = [name for name in images.classes or () if not is_class_name(name)]
    if odd:
        raise SourceError(
            f"{what}: expected printable class names of 1 to {MAX_LENGTH} characters, got {odd[0]!r:.80}; give others "
            "with --classes"
        )
    twice = sorted({name for name in images.classes or () if (images.classes or []).count(name) > 1})
    if twice:
        raise SourceError(f"{what}: expected every class name once, got {twice[0]!r} twice; give others with --classes")
    return images


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files that a path or pattern names, in the order of their names."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*.parquet") if not is_system_file(file.relative_to(path).as_posix()))
    return [file for file in _matching(path) if file.suffix.lower() == ".parquet"]


def _opened(path: Path, options: Options) -> Images:
    split, label = options.split, options.label_column
    files = _matching(path)
    if not files:
        raise SourceError(f"{path}: expected {KINDS}, got no such file; check the path")
    if tables := parquet_files(path):
        pictures = sum(is_image_name(file.name) for file in path.rglob("*")) if path.is_dir() else 0
        try:
            images = parquet_images(tables, split, options.image_column, label)
        except NoColumn:
            if not pictures:
                raise  # without pictures the files are not a table that describes them
        else:
            images.notes += [f"{pictures:,} image files beside the Parquet files are not read"] if pictures else []
            return images
    tars = sorted(file for file in (path.iterdir() if path.is_dir() else files) if file.name.lower().endswith(TARS))
    if tars and is_webdataset(tars[0]):
        return shard_images(tars, split, label)
    if path.is_dir():
        return torchvision_images(path, split, label) or _archives(path, split) or folder_images(path, split)
    if len(files) > 1:
        raise SourceError(f"{path}: expected one source, got {len(files)} files; give the folder that holds them")
    return _file(files[0], split)


def _archives(folder: Path, split: str | None) -> Images | None:
    """Images of the archive in a folder that has no image files itself, as data sets of the Hub often are."""
    names = {file: file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()}
    files = [file for file, name in names.items() if not is_system_file(name)]
    archives = [file for file in files if file.name.lower().endswith((".zip", ".npz", *TARS))]
    if not archives or any(is_image_name(file.name) for file in files):
        return None
    if len(archives) == 1:
        return _file(archives[0], split)
    by_name = {split_of(file) or names[file]: file for file in archives}
    wanted = choose("archives", list(by_name), split, "--split")
    if wanted is None:
        raise SourceError(f"{folder}: expected one archive, got `all`; push each as a data set of its own")
    return _file(by_name[wanted], None)


def _file(path: Path, split: str | None) -> Images:
    name = path.name.lower()
    if name.endswith(TARS):
        return tar_images(path, split)
    if name.endswith(".zip"):
        return zip_images(path, split)
    if name.endswith((".npz", ".npy")):
        return array_images(path, split)
    raise SourceError(f"{path}: expected {KINDS}, got a file that ends with {path.suffix or 'nothing'}")


def _matching(path: Path) -> list[Path]:
    if path.exists():
        return [path]
    if not any(mark in str(path) for mark in "*?["):
        return []
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
