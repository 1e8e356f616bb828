"""`pnc datasets`: images, with labels or without."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion, purging
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected, record, size, table, when

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Dataset

app = typer.Typer(name="datasets", help="Images that jobs work with.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Id of a dataset.", autocompletion=completion.datasets)]


@app.command()
def push(
    path: Annotated[
        Path,
        typer.Argument(
            help="A folder with one folder a class (or with images without labels), or a Parquet file.", exists=True
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name for people; default: the path's.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names of a Parquet file, by commas.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send images."""
    from pnc_core.errors import ConfigError

    with connected(url, as_json) as (client, screen):
        if classes and path.is_dir():
            raise ConfigError(f"--classes: expected a Parquet file, got a folder, which names its own: {path}")
        names = classes.split(",") if classes else None
        with screen.bar(f"sending {path.name}") as progress:
            dataset = client.datasets.push(path, name=name, classes=names, progress=progress)
        screen.show(dataset, lambda: _dataset(dataset))


@app.command("list")
def list_datasets(
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones, too.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """All datasets, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.datasets.list(archived=archived))
        rows = (
            [d.id, d.name, f"{d.rows:,}", len(d.classes) or "no labels", size(d.bytes), when(d.created_at)]
            for d in found
        )
        empty = "no datasets yet; send a folder of images with `pnc datasets push`"
        columns = ["dataset", "name", "#images", "#classes", "#size", "registered"]
        screen.show(found, lambda: table(columns, rows, empty))


@app.command()
def show(dataset: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """One dataset."""
    with connected(url, as_json) as (client, screen):
        found = client.datasets.get(dataset)
        screen.show(found, lambda: _dataset(found))


@app.command()
def delete(dataset: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Archive a dataset: it leaves the lists and takes no more jobs; those that have begun go on."""
    with connected(url, as_json) as (client, screen):
        client.datasets.archive(dataset)
        purging.archived(screen, "datasets", dataset)


@app.command()
def restore(dataset: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Bring an archived dataset back."""
    with connected(url, as_json) as (client, screen):
        client.datasets.change(dataset, archived=False)
        screen.show({"restored": dataset}, lambda: f"restored {dataset}")


@app.command()
def purge(
    dataset: Id,
    dry_run: purging.DryRun = False,
    yes: purging.Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Remove an archived dataset and its images for good; needs the scope admin."""
    with connected(url, as_json) as (client, screen):
        purging.run(screen, lambda planned: client.datasets.purge(dataset, dry_run=planned), dry_run=dry_run, yes=yes)


def _dataset(dataset: "Dataset") -> "RenderableType":
    return record(
        {
            "dataset": dataset.id,
            "name": dataset.name,
            "images": f"{dataset.rows:,}",
            "classes": ", ".join(f"{name} ({count:,})" for name, count in dataset.counts.items())
            or "none: the images have no labels, for jobs with `--set labels=false`",
            "size": size(dataset.bytes),
            "digest": dataset.digest,
            "registered": when(dataset.created_at),
            "archived": when(dataset.archived_at) if dataset.archived_at else "no",
        }
    )
