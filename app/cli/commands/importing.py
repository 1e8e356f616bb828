"""`pnc models import` and `pnc models export`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion
from app.cli.commands.models import app, show_version
from app.cli.screen import DEFAULT_URL, AsJson, Exit, Screen, Url, connected, local_time, plain, record, table
from app.cli.weights import network_and_weights

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.imports.sources import Source
    from app.sources.found import Found
    from pnc_client import Client, Import
    from pnc_core.config import NetworkSpec

SourceText = Annotated[
    str,
    typer.Argument(
        help="torchvision/NAME[@WEIGHTS], timm/NAME[.TAG], hf://OWNER/NAME[@REVISION], mlflow://models/NAME/VERSION, "
        "a URL, or a file."
    ),
]


@app.command("import")
def import_model(
    source: SourceText,
    name: Annotated[str | None, typer.Argument(help="Name of the model; default: the last part of the source.")] = None,
    spec: Annotated[
        Path | None, typer.Option(help="For a file, a URL or MLflow: spec of the network as JSON.", exists=True)
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="For a file, a URL or MLflow: name; default: found by the tensors.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names: by commas, a file of names, or cifar10 or cifar100.")
    ] = None,
    input_size: Annotated[str | None, typer.Option(help="Channels, height and width, e.g. 3x32x32.")] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of each channel, by commas.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each channel, by commas.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "--set", help="Of the architecture, e.g. width=32; repeatable.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights; default: as published.")] = "",
    description: Annotated[str, typer.Option(help="Description of a new model.")] = "",
    on_service: Annotated[
        bool, typer.Option("--on-service", help="A worker of the service fetches the network, not this machine.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until a worker has checked the version.")] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Import a network with its class names and preprocessing: this machine fetches it and uploads it."""
    fields = {"architecture": architecture, "classes": classes, "input_size": input_size, "mean": mean, "std": std}
    from app.imports.sources import parse

    with connected(url, as_json) as (client, screen), ExitStack() as stack:
        if on_service:
            _submitted(client, screen, source, name, spec, licence, description, wait=wait)
            return
        place = parse(source, files=True)
        model = name or place.model_name
        found = _fetched(stack, screen, place)
        network, file = stack.enter_context(_network(screen, found, spec, fields, option or []))
        screen.note(f"{found.origin.source}: {network.architecture}, {len(network.classes):,} classes")
        with screen.bar(f"sending {file.name}") as progress:
            version = client.models.push(
                model, network, file, licence=licence or found.licence, description=description,
                origin=found.origin, progress=progress,
            )  # fmt: skip
        if wait:
            screen.note(f"{version.ref}: waiting for a worker to check it")
            version = version.wait()
        screen.show(version, lambda: show_version(version))


def _submitted(
    client: "Client", screen: Screen, source: str, name: str | None, spec: Path | None, licence: str,
    description: str, *, wait: bool,
) -> None:  # fmt: skip
    """Have a worker of the service import a network."""
    network = None
    if spec is not None:
        from app.local.specs import given_spec

        network = given_spec(spec, {}, [])
    row = client.imports.create(source, name or "", spec=network, licence=licence, description=description)
    if wait:
        if screen.as_json:
            row = row.wait()
        else:
            with screen.notes.status(f"importing {row.source}") as status:
                row = row.wait(lambda done, message: status.update(f"{done:.0%} {plain(message)}"))
    if row.version is None or not wait:
        screen.show(row, lambda: show_import(row))
        if row.state in ("failed", "cancelled"):
            raise typer.Exit(Exit.NOT_SUCCEEDED)
        return
    version = client.models.find(row.version).wait()
    screen.show(version, lambda: show_version(version))


def show_import(row: "Import") -> "RenderableType":
    """Fields of an import, one per line."""
    return record(
        {
            "import": row.id,
            "state": f"{row.state}: {row.message}",
            "source": row.source,
            "model": row.model,
            "version": row.version,
            "progress": f"{row.progress:.0%}",
            "submitted": local_time(row.created_at),
        }
    )


@app.command("imports")
def list_imports(
    cancel: Annotated[str | None, typer.Option(help="Cancel the import with this id.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List imports that the service's workers run, newest first, or cancel one."""
    with connected(url, as_json) as (client, screen):
        if cancel is not None:
            row = client.imports.cancel(cancel)
            screen.show(row, lambda: show_import(row))
            return
        found = list(client.imports.list())
        rows = ([i.id, i.source, i.model, i.state, f"{i.progress:.0%}", i.message] for i in found)
        columns = ["import", "source", "model", "state", "#progress", "message"]
        screen.show(found, lambda: table(columns, rows, "no imports yet; see `pnc models import --on-service`"))


def _fetched(stack: ExitStack, screen: Screen, source: "Source") -> "Found":
    """The network at its source; its files are gone after the stack's block."""
    from app.sources.found import Rules
    from app.sources.resolving import found_at
    from pnc_client.schemas.imports import DEFAULT_HOSTS

    typed = (source.host,) if source.host else ()
    with screen.bar(f"fetching {source.text}") as progress:
        rules = Rules((*DEFAULT_HOSTS, *typed), own_machine=True, report=progress, note=screen.note)
        return stack.enter_context(found_at(source, rules))


@contextmanager
def _network(
    screen: Screen, found: "Found", spec: Path | None, fields: dict[str, str | None], options: list[str]
) -> "Iterator[tuple[NetworkSpec, Path]]":
    """The specification of a network and its weights; a bare file of weights is brought as `pnc models push` does."""
    if found.spec is None:
        given = spec or found.weights.with_suffix(".json")
        with network_and_weights(screen, found.weights, given, fields, options, {}, None, None) as pair:
            yield pair
        return
    if spec is not None or options or any(value is not None for value in fields.values()):
        raise typer.BadParameter(
            f"expected no fields of a network for {found.origin.source}, which has its own", param_hint="--spec"
        )
    yield found.spec, found.weights


@app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(help="Version: name, name@3 or name@alias.", autocompletion=completion.models)],
    to: Annotated[str, typer.Option("--to", help="A new or empty folder, or hf://OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private/--public", help="Visibility of a new repository.")] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Write weights, config.json and model card as a repository of the Hugging Face Hub."""
    import tempfile

    with connected(url, as_json) as (client, screen), ExitStack() as stack:
        from app.imports.sources import SourceError, parse
        from app.sources import exporting

        place = parse(to) if to.startswith("hf://") else None
        if place is not None and place.revision is not None:
            raise SourceError(f"--to: expected hf://OWNER/NAME, got {to!r}; leave the revision out")
        folder = Path(to if place is None else stack.enter_context(tempfile.TemporaryDirectory(prefix="pnc-")))
        exporting.check_empty(folder)
        version = client.models.find(name)
        folder.mkdir(parents=True, exist_ok=True)
        with screen.bar(f"fetching {version.ref}") as progress:
            client.models.download(version.ref, folder / exporting.WEIGHTS, progress=progress)
        model = client.models.get(version.ref.partition("@")[0])
        exporting.describe(version, model.description, folder)
        where = str(folder) if place is None else exporting.upload(folder, place.name, private=private)
        document = {"version": version.ref, "digest": version.digest, "to": where}
        screen.show(document, lambda: f"exported {version.ref} to {where}")
