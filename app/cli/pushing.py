"""Options and answers of `pnc datasets push`: images that were read, and skipped files with the reasons."""

import csv
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.screen import Screen

if TYPE_CHECKING:
    from pnc_client import Client, Dataset
    from pnc_client.sources import Images, Options, Skipped

PATIENCE, POLL_SECONDS = 30.0, 0.3
SHOWN = 10
"""Files and rows that are named on the screen; a file names all."""
What = Annotated[
    str,
    typer.Argument(
        help="A folder with one folder of images per class (or with unlabelled images), a zip or tar archive of one, a "
        "Parquet file or a folder of several, shards of a WebDataset, .npz or .npy, a folder of torchvision, or "
        "hf://datasets/OWNER/NAME."
    ),
]
Split = Annotated[str | None, typer.Option(help="train, validation, test or all, where the source has several.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the images in Parquet; default: recognised.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column or field of the labels, or `none`; default: recognised.")]
Classes = Annotated[
    str | None,
    typer.Option(
        help="Class names in the order of the labels, separated by commas; or a file with one name a line; or a CSV of "
        "old and new names, or of files and classes."
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        "--class-names",
        help="Class names of the images in the order of the labels, separated by commas; or a file of names, as for "
        "`pnc datasets push --classes`.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse the source if anything that may be an image is left out.")
]
SkippedFile = Annotated[
    Path | None, typer.Option(help="Write all files and rows that are left out to this CSV file.", dir_okay=False)
]


def check_there(what: str) -> None:
    """Check before any work that a path exists.

    Raises:
        ConfigError: there is no such file or directory.
    """
    from pnc_core.errors import ConfigError

    if "://" not in what and "*" not in what and not Path(what).exists():
        raise ConfigError(f"images: expected a file or directory that exists, got {what}; correct the path")


def options(split: str | None, image_column: str | None, label_column: str | None, classes: str | None) -> "Options":
    """Choices for a source of images."""
    from pnc_client.sources import Options

    return Options(split, image_column, label_column, names(classes))


def names(classes: str | None) -> str | list[str] | None:
    """A file of names, or names that commas separate."""
    return classes if classes is None or Path(classes).is_file() else classes.split(",")


def report(screen: Screen, images: "Images", file: Path | None) -> None:
    """Tell how a source was read, and which files and rows are left out.

    Args:
        screen: Shows the notes.
        images: A source that was read to its end.
        file: CSV file for all that is left out; None: one in the system's folder of temporary files, if there are more
            than `SHOWN`.
    """
    for note in images.notes:
        screen.note(note)
    hidden = [one for one in images.skipped if one.harmless]
    lost = images.lost
    if hidden:
        kinds = Counter(one.reason for one in hidden).most_common(3)
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in kinds)
        screen.note(f"{len(hidden):,} files that are no images are left out ({reasons})")
    if lost:
        screen.note(f"{len(lost):,} images are left out:")
        for one in lost[:SHOWN]:
            screen.note(f"  {one.name}: {one.reason}")
    if file is None and len(lost) > SHOWN:
        file = Path(tempfile.mkdtemp(prefix="pnc-"), "skipped.csv")
    if file is not None:
        write_skipped(file, images.skipped)
        screen.note(f"all {len(images.skipped):,} are listed in {file}")


def settled(client: "Client", screen: Screen, dataset: "Dataset") -> "Dataset":
    """Wait until a worker has decoded every image; give up if no worker begins or goes on for `PATIENCE` seconds."""
    if dataset.inspection != "waiting":
        return dataset
    title, seen, moved = "decoding every image", -1, time.monotonic()
    with screen.counting(title) as progress:
        while dataset.inspection == "waiting" and time.monotonic() < moved + PATIENCE:
            time.sleep(POLL_SECONDS)
            dataset = client.datasets.get(dataset.id)
            progress(dataset.inspected, dataset.rows)
            if dataset.inspected != seen:
                seen, moved = dataset.inspected, time.monotonic()
    if dataset.inspection == "waiting":
        screen.note(f"no worker decodes the images; see later with `pnc datasets show {dataset.id}`")
    return dataset


def oddities(dataset: "Dataset") -> dict[str, str]:
    """Oddities of a dataset, as rows of a record."""
    if dataset.inspection == "failed":
        return {"inspection": f"failed: {(dataset.problem or {}).get('detail', '')}"}
    if dataset.findings is None:
        return {"inspection": f"waiting; {dataset.inspected:,} of {dataset.rows:,} images are decoded"}
    sizes = dataset.findings.sizes
    rows = (
        {"sizes": "{shorter_smallest} to {shorter_largest} pixels, half at most {shorter_median}".format(**sizes)}
        if sizes
        else {}
    )
    found = dataset.findings.warnings
    return {**rows, "warnings": "\n".join(one.detail for one in found) or "none"}


def refuse_incomplete(client: "Client", dataset: "Dataset") -> None:
    """With `--strict`: archive a dataset in which an image cannot be decoded, and end.

    Raises:
        SourceError: there is such an image.
    """
    from pnc_client.sources import SourceError

    findings = dataset.findings
    if findings is None or not findings.unreadable:
        return
    client.datasets.archive(dataset.id)
    first = findings.first_unreadable[0]
    raise SourceError(
        f"expected images without exception, got {findings.unreadable:,} that cannot be decoded, such as "
        f"{first.name or f'row {first.row}'}: {first.reason}; the dataset {dataset.id} is archived"
    )


def write_skipped(file: Path, skipped: "list[Skipped]") -> None:
    """Write a CSV file with the columns `name` and `reason`."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["name", "reason"])
        rows.writerows([one.name, one.reason] for one in skipped)
