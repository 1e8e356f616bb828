"""`pnc datasets`: images with or without labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion, purging, pushing
from app.cli.screen import DEFAULT_URL, AsJson, Url, check_out, connected, local_time, record, size, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Dataset

app = typer.Typer(name="datasets", help="Images for cloning jobs.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Id of a dataset.", autocompletion=completion.datasets)]


@app.command()
def push(
    what: pushing.What,
    name: Annotated[str | None, typer.Option(help="Name for people; default: made from the path.")] = None,
    classes: pushing.Classes = None,
    split: pushing.Split = None,
    image_column: pushing.ImageColumn = None,
    label_column: pushing.LabelColumn = None,
    strict: pushing.Strict = False,
    skipped: pushing.SkippedFile = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until every image is decoded.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload images as a dataset; list skipped files with the reasons."""
    with connected(url, as_json) as (client, screen):
        with screen.bar(f"uploading {what}") as progress:
            pushed = client.datasets.push(
                what, name=name, classes=pushing.names(classes), split=split, image_column=image_column,
                label_column=label_column, strict=strict, progress=progress,
                read=lambda images: pushing.report(screen, images, skipped),
            )  # fmt: skip
        dataset = pushed if no_wait else pushing.settled(client, screen, pushed)
        if strict:
            pushing.refuse_incomplete(client, dataset)
        screen.show(dataset, lambda: _dataset(dataset))


@app.command("list")
def list_datasets(
    archived: Annotated[bool, typer.Option("--archived", help="Include archived datasets.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List datasets, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.datasets.list(archived=archived))
        rows = (
            [d.id, d.name, f"{d.rows:,}", len(d.classes) or "no labels", size(d.bytes), local_time(d.created_at)]
            for d in found
        )
        empty = "no datasets yet; upload a directory of images with `pnc datasets push`"
        columns = ["dataset", "name", "#images", "#classes", "#size", "registered"]
        screen.show(found, lambda: table(columns, rows, empty))


@app.command()
def show(dataset: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a dataset."""
    with connected(url, as_json) as (client, screen):
        found = client.datasets.get(dataset)
        screen.show(found, lambda: _dataset(found))


@app.command()
def unreadable(dataset: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List all images of a dataset that cannot be decoded, with reasons."""
    with connected(url, as_json) as (client, screen):
        found = list(client.datasets.unreadable(dataset))
        rows = ([f"{one.row:,}", one.name, one.reason] for one in found)
        screen.show(
            found, lambda: table(["#row", "file", "reason"], rows, "every image can be decoded, or none was tried")
        )


@app.command()
def download(
    dataset: Id,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.", dir_okay=False)],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Download a dataset's Parquet file as it was uploaded."""
    with connected(url, as_json) as (client, screen):
        check_out(out)
        with screen.bar(f"downloading {dataset}") as progress:
            path = client.datasets.download(dataset, out, progress=progress)
        screen.show({"file": str(path)}, lambda: str(path))


@app.command()
def delete(dataset: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Archive a dataset: lists hide it and new jobs cannot use it; submitted jobs continue."""
    with connected(url, as_json) as (client, screen):
        client.datasets.archive(dataset)
        purging.archived(screen, "datasets", dataset)


@app.command()
def restore(dataset: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Restore an archived dataset."""
    with connected(url, as_json) as (client, screen):
        client.datasets.change(dataset, archived=False)
        purging.restored(screen, dataset)


@app.command()
def purge(
    dataset: Id,
    dry_run: purging.DryRun = False,
    yes: purging.Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Delete an archived dataset and its images permanently; needs the scope admin."""
    with connected(url, as_json) as (client, screen):
        purging.run(screen, lambda planned: client.datasets.purge(dataset, dry_run=planned), dry_run=dry_run, yes=yes)


def _dataset(dataset: "Dataset") -> "RenderableType":
    found = dataset.findings
    return record(
        {
            "dataset": dataset.id,
            "name": dataset.name,
            "images": f"{dataset.rows:,}" if found is None else f"{found.good:,} of {dataset.rows:,} rows",
            "classes": ", ".join(f"{name} ({count:,})" for name, count in dataset.counts.items())
            or "none: the images have no labels; use them with `--set labels=false`",
            **pushing.oddities(dataset),
            "size": size(dataset.bytes),
            "digest": dataset.digest,
            "registered": local_time(dataset.created_at),
            "archived": local_time(dataset.archived_at) if dataset.archived_at else "no",
        }
    )
