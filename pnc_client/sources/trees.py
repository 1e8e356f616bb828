"""Files of a folder or of an archive, by path."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from pnc_client.sources.found import MAX_FILE, Images, Item, Skipped, SourceError, is_system_file
from pnc_client.sources.layout import arrange

Read = Callable[[], bytes]
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def folder_images(root: Path, split: str | None) -> Images:
    """Images of a folder, see `arrange`.

    Raises:
        SourceError: there is no image, or no split is chosen.
    """
    files = dict(_walk(root))
    layout = arrange(files, split)
    skipped = [*layout.skipped]

    def items() -> Iterator[Item]:
        for path, label in layout.placed:
            try:
                if files[path].stat().st_size > MAX_FILE:
                    skipped.append(Skipped(path, f"it has more than {MAX_FILE:,} bytes"))
                    continue
                raw = files[path].read_bytes()
            except OSError as error:
                skipped.append(Skipped(path, f"it cannot be read: {error.strerror or error}"))
                continue
            yield Item(path, label, raw)

    return _checked(Images(layout.classes, items(), skipped, layout.notes), layout.placed, root)


def zip_images(path: Path, split: str | None) -> Images:
    """Images of a zip archive, which is not unpacked.

    Raises:
        SourceError: there is no image, no split is chosen, or the archive is damaged or has a password.
    """
    stack = ExitStack()
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"{path}: expected a zip archive, got {error}; make it again") from None
    entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
    if any(entry.flag_bits & 1 for entry in entries.values()):
        raise SourceError(f"{path}: expected an archive without a password, got one with a password; unpack it first")
    layout = arrange(entries, split)
    skipped = [*layout.skipped]

    def items() -> Iterator[Item]:
        with stack:
            for name, label in layout.placed:
                if entries[name].file_size > MAX_FILE:
                    skipped.append(Skipped(name, f"it has more than {MAX_FILE:,} bytes"))
                    continue
                try:
                    raw = archive.read(name)
                except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
                    skipped.append(Skipped(name, f"it cannot be unpacked: {error}"))
                    continue
                yield Item(name, label, raw)

    return _checked(Images(layout.classes, items(), skipped, layout.notes), layout.placed, path)


def tar_images(path: Path, split: str | None) -> Images:
    """Images of a tar archive, in its own order; it is read twice and not unpacked.

    Raises:
        SourceError: there is no image, no split is chosen, or the archive is damaged.
    """
    layout = arrange((member.name for member, _ in tar_members(path)), split)
    labels, skipped = dict(layout.placed), [*layout.skipped]

    def items() -> Iterator[Item]:
        for member, read in tar_members(path):
            if member.name not in labels:
                continue
            if member.size > MAX_FILE:
                skipped.append(Skipped(member.name, f"it has more than {MAX_FILE:,} bytes"))
                continue
            yield Item(member.name, labels[member.name], read())

    return _checked(Images(layout.classes, items(), skipped, layout.notes), layout.placed, path)


def tar_members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Read]]:
    """The files of a tar archive, each with a function that reads it before the next one is asked for.

    Raises:
        SourceError: it is no tar archive, or is damaged.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.isfile():
                    member.name = member.name.removeprefix("./")
                    yield member, lambda member=member: _content(archive, member)  # type: ignore[misc]
                archive.members = []  # type: ignore[attr-defined] # it would keep every member
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"{path}: expected a tar archive that can be read, got {error}; make it again") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """All files below a folder; links are followed, and no folder is entered twice."""
    seen: set[Path] = set()
    rest = [root]
    while rest:
        folder = rest.pop()
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        for path in folder.iterdir():
            if path.is_dir() and not is_system_file(path.name):
                rest.append(path)
            else:
                yield path.relative_to(root).as_posix(), path


def _checked(images: Images, placed: object, path: Path) -> Images:
    if not placed:
        some = "".join(f"; {one.name}: {one.reason}" for one in images.lost[:3])
        raise SourceError(
            f"{path}: expected one folder per class with image files, or image files without labels, got no image{some}"
        )
    return images
