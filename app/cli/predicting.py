"""`pnc deployments predict` for many files: batches, a progress bar, and a table on the screen or in a file."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from app.cli.screen import Exit, Screen, check_out, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Client, ImagePrediction

ENDINGS = (".csv", ".parquet")
SHOWN = 50
"""Rows of the table on the screen."""


@dataclass(frozen=True)
class Row:
    """The prediction for one file."""

    file: str
    name: str | None
    """The most probable class; None: the file was not classified."""
    probability: float | None
    problem: str | None
    """The reason why the file was not classified."""


def predict_files(
    client: "Client",
    screen: Screen,
    deployment: str,
    given: Sequence[Path],
    modules: Sequence[str] | None,
    top: int | None,
    out: Path | None,
) -> None:
    """Classify image files and the image files of folders, and show or write the most probable class of each.

    The command fails with `Exit.NOT_SUCCEEDED` after the last file if some file could not be classified.

    Args:
        client: The client.
        screen: The command's output.
        deployment: Name of the deployment.
        given: Files and folders.
        modules: Ids of the modules to predict with; an empty list: the target alone; None: all attached modules.
        top: Number of the most probable classes that `--json` shows; None: all.
        out: File for the table, .csv or .parquet; None: the table goes to the screen.
    """
    if out is not None and out.suffix.lower() not in ENDINGS:
        raise typer.BadParameter(
            f"expected a file that ends with {' or '.join(ENDINGS)}, got {out}", param_hint="--out"
        )
    files, others = _files(given)
    if out is not None:
        check_out(out, *files)
    if not files:
        _nothing(screen, given, others)
    if others:
        screen.note(f"{others:,} other files in folders are left out: their names do not end as an image's")
    found: list[tuple[Path, ImagePrediction]] = []
    # Without --json and --out only the first class is shown.
    wanted = top if screen.as_json else 1
    with screen.counting(f"predicting with {deployment}") as count:
        for pair in client.deployments.predict_all(deployment, files, modules=modules, top=wanted):
            found.append(pair)
            count(len(found), len(files))
    rows = [_row(file, prediction) for file, prediction in found]
    if out is not None:
        (_write_csv if out.suffix.lower() == ".csv" else _write_parquet)(out, rows)
        screen.show({"out": str(out), "images": len(rows)}, lambda: f"{len(rows):,} rows are in {out}")
    else:
        values = [{"file": str(file), **prediction.model_dump(exclude={"name"})} for file, prediction in found]
        screen.show(values, lambda: _table(rows))
        if len(rows) > SHOWN:
            screen.note(f"and {len(rows) - SHOWN:,} more; --out FILE.csv writes all")
    bad = [row for row in rows if row.problem is not None]
    if bad:
        screen.note(f"{len(bad):,} of {len(rows):,} files were not classified, the first one {bad[0].problem}")
        raise typer.Exit(int(Exit.NOT_SUCCEEDED))


def _files(given: Sequence[Path]) -> tuple[list[Path], int]:
    """The named files and the image files of the named folders, in order; and the number of other files in folders."""
    from pnc_client.sources.found import is_image_name, is_system_file

    files, others = [], 0
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        for inside in sorted(path.rglob("*")):
            if inside.is_file() and not is_system_file(inside.relative_to(path).as_posix()):
                if is_image_name(inside.name):
                    files.append(inside)
                else:
                    others += 1
    return files, others


def _nothing(screen: Screen, given: Sequence[Path], others: int) -> NoReturn:
    folders = ", ".join(map(str, given))
    screen.fail(Exit.FAILED, f"{folders}: expected at least one image file, got none among {others:,} files")


def _row(file: Path, prediction: "ImagePrediction") -> Row:
    first = next(iter(prediction.classes), None)
    if first is None:
        return Row(str(file), None, None, prediction.problem)
    return Row(str(file), first.name, first.probability, prediction.problem)


def _table(rows: Sequence[Row]) -> "RenderableType":
    shown = (
        [row.file, row.name or "—", "" if row.probability is None else f"{row.probability:.4f}", row.problem or ""]
        for row in rows[:SHOWN]
    )
    titles = ["file", "class", "#probability", "problem" if any(row.problem for row in rows[:SHOWN]) else ""]
    return table(titles, shown, "no images")


def _write_csv(out: Path, rows: Sequence[Row]) -> None:
    from pnc_core.files import written_whole

    with written_whole(out) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "class", "probability", "problem"])
        writer.writeheader()
        writer.writerows(_columns(row) for row in rows)


def _write_parquet(out: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pnc_core.files import written_whole

    kinds: dict[str, pa.DataType] = {
        "file": pa.string(),
        "class": pa.string(),
        "probability": pa.float64(),
        "problem": pa.string(),
    }
    with written_whole(out) as half:
        pq.write_table(pa.Table.from_pylist([_columns(row) for row in rows], pa.schema(kinds)), half)


def _columns(row: Row) -> dict[str, object]:
    return {"file": row.file, "class": row.name, "probability": row.probability, "problem": row.problem}
