"""`pnc models`: registered networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import naming, purging
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected, record, size, table, when
from app.models.card import first_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Model, Version
    from pnc_client.schemas.purges import Purge

app = typer.Typer(name="models", help="Registered networks and their versions.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of a model.", autocompletion=naming.models)]
Number = Annotated[int, typer.Argument(help="Number of a version.", min=1)]


@app.command()
def push(
    name: Annotated[str, typer.Argument(help="Name of the model; it is registered if need be.")],
    weights: Annotated[Path, typer.Argument(help="Weights: .safetensors, or .pth to convert.", exists=True)],
    spec: Annotated[
        Path | None,
        typer.Option(help="The network as JSON; default: the file beside the weights that ends in .json.", exists=True),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Without a file: name, e.g. resnet20.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class names in the order of the logits, by commas.")] = None,
    input_size: Annotated[str | None, typer.Option(help="Channels, height and width, e.g. 3x32x32.")] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of each channel, by commas.")] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of each channel, by commas.")] = None,
    resize: Annotated[str | None, typer.Option(help="How images are resized: squash or shorter-side.")] = None,
    resize_size: Annotated[
        int | None, typer.Option(help="Pixels of the shorter side before the centre crop to the input size.")
    ] = None,
    crop_share: Annotated[
        float | None, typer.Option(help="In place of --resize-size: input size over shorter side, e.g. 0.875.")
    ] = None,
    interpolation: Annotated[str | None, typer.Option(help="E.g. bilinear, bicubic or nearest.")] = None,
    antialias: Annotated[bool | None, typer.Option(help="Average pixels where images are made smaller.")] = None,
    channel_order: Annotated[str | None, typer.Option(help="Order of the colours: rgb or bgr.")] = None,
    value_range: Annotated[str | None, typer.Option(help="Range of pixels before the mean: 0..1 or 0..255.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Of the architecture, e.g. width=32; repeatable.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "",
    description: Annotated[str, typer.Option(help="Of the model, if it is new.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until a worker has tried the version.")] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send weights as the next version of a model."""
    with connected(url, as_json) as (client, screen):
        from app.local.specs import given_spec
        from app.local.weights import as_safetensors

        fields = {"architecture": architecture, "classes": classes, "input_size": input_size, "mean": mean, "std": std}
        rule = {
            "resize": resize,
            "resize_size": resize_size,
            "crop_share": crop_share,
            "interpolation": interpolation,
            "antialias": antialias,
            "channel_order": channel_order,
            "value_range": value_range,
        }
        network = given_spec(spec or weights.with_suffix(".json"), fields, option or [], rule)
        with as_safetensors(weights) as file, screen.bar(f"sending {weights.name}") as progress:
            version = client.models.push(
                name, network, file, licence=licence, description=description, progress=progress
            )
        if wait:
            screen.note(f"{version.ref}: waiting for a worker to try it")
            version = version.wait()
        screen.show(version, lambda: _version(version))


@app.command("list")
def list_models(
    archived: Annotated[bool, typer.Option("--archived", help="Archived models, too.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """All models, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.models.list(archived=archived))
        rows = (
            [m.name, m.last_version, _aliases(m), when(m.created_at), first_line(m.description)[:60]] for m in found
        )
        empty = "no models yet; send one with `pnc models push`, or fill the zoo with `pnc gallery`"
        screen.show(found, lambda: table(["model", "#versions", "aliases", "registered", "description"], rows, empty))


@app.command()
def show(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """A model with all its versions, archived ones too; `name@3` shows that version alone."""
    with connected(url, as_json) as (client, screen):
        model, _, number = name.partition("@")
        if number.isdigit():
            version = client.models.version(model, int(number))
            screen.show(version, lambda: _version(version))
            return
        found, versions = client.models.get(model), list(client.models.versions(model, archived=True))
        document = {**found.model_dump(mode="json"), "versions": [v.model_dump(mode="json") for v in versions]}
        screen.show(document, lambda: _model(found))
        if not as_json:
            rows = ([v.number, _status(v), v.spec.architecture, _some(v.spec.classes), size(v.bytes)] for v in versions)
            columns = ["#version", "status", "architecture", "classes", "#size"]
            screen.out.print(table(columns, rows, "no versions yet; send one with `pnc models push`"))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Unique name.")],
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Register a model, still without versions; `push` does this, too."""
    with connected(url, as_json) as (client, screen):
        model = client.models.create(name, description)
        screen.show(model, lambda: _model(model))


@app.command()
def edit(
    name: Name,
    description: Annotated[str | None, typer.Option(help="New card in Markdown.")] = None,
    card: Annotated[Path | None, typer.Option(help="File with the new card.", exists=True, dir_okay=False)] = None,
    archived: Annotated[bool | None, typer.Option("--archive/--restore", help="Archive or restore.")] = None,
    clonable: Annotated[
        str | None, typer.Option(help="Classes that may be cloned from it, separated by commas; `all`, or `none`.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Change a model's card, archive or restore it."""
    if card is not None and description is not None:
        raise typer.BadParameter("expected --card or --description, got both", param_hint="--card")
    with connected(url, as_json) as (client, screen):
        text = card.read_text(encoding="utf-8") if card is not None else description
        classes = None if clonable is None else "all" if clonable == "all" else _listed(clonable)
        model = client.models.change(name, description=text, archived=archived, clonable=classes)
        screen.show(model, lambda: _model(model))


@app.command()
def delete(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Archive a model, or `name@3` alone: it leaves the lists and takes no more jobs; deployments go on."""
    with connected(url, as_json) as (client, screen):
        model, number = _parted(name)
        if number is None:
            client.models.archive(model)
        else:
            client.models.archive_version(model, number)
        purging.archived(screen, "models", name)


@app.command()
def restore(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Bring an archived model back, or `name@3` alone."""
    with connected(url, as_json) as (client, screen):
        model, number = _parted(name)
        if number is None:
            client.models.change(model, archived=False)
        else:
            client.models.change_version(model, number, archived=False)
        screen.show({"restored": name}, lambda: f"restored {name}")


@app.command()
def purge(
    name: Name,
    dry_run: purging.DryRun = False,
    yes: purging.Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Remove an archived model and its versions for good, or `name@3` alone; needs the scope admin."""
    with connected(url, as_json) as (client, screen):
        model, number = _parted(name)

        def work(planned: bool) -> "Purge":
            if number is None:
                return client.models.purge(model, dry_run=planned)
            return client.models.purge_version(model, number, dry_run=planned)

        purging.run(screen, work, dry_run=dry_run, yes=yes)


@app.command()
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="Name of the alias, used as model@alias.")],
    version: Annotated[int | None, typer.Argument(help="Number of the version it shall point at.", min=1)] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the alias.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a version, or remove it."""
    if delete == (version is not None):
        raise typer.BadParameter("expected a version, or --delete", param_hint="VERSION")
    with connected(url, as_json) as (client, screen):
        if version is None:
            client.models.delete_alias(name, alias)
            screen.show({"deleted": alias}, lambda: f"{name}@{alias} is gone")
        else:
            set_to = client.models.set_alias(name, alias, version)
            screen.show(set_to, lambda: f"{name}@{alias} is {name}@{version}")


def _model(model: "Model") -> "RenderableType":
    return record(
        {
            "model": model.name,
            "id": model.id,
            "description": model.description,
            "versions": model.last_version,
            "aliases": _aliases(model),
            "clonable": "all" if model.clonable is None else ", ".join(model.clonable) or "none",
            "registered": when(model.created_at),
            "archived": when(model.archived_at) if model.archived_at else "no",
        }
    )


def _status(version: "Version") -> str:
    return "archived" if version.archived_at else version.status


def _version(version: "Version") -> "RenderableType":
    spec = version.spec
    problem = (version.problem or {}).get("detail")
    return record(
        {
            "version": version.ref,
            "status": f"{version.status}: {problem}" if problem else version.status,
            "architecture": " ".join([spec.architecture, *(f"{k}={v}" for k, v in spec.options.items())]),
            "classes": ", ".join(spec.classes),
            "input": " x ".join(map(str, spec.input_size)),
            "preprocessing": spec.preprocessing.describe(spec.input_size),
            "size": size(version.bytes),
            "parameters": f"{version.parameters:,}" if version.parameters is not None else None,
            "macs": f"{version.macs:,}" if version.macs is not None else None,
            "accuracy": _accuracy(version),
            "fingerprint": version.fingerprint,
            "licence": version.licence,
            "added": when(version.created_at),
            "archived": when(version.archived_at) if version.archived_at else "no",
        }
    )


def _accuracy(version: "Version") -> str | None:
    if version.accuracy is None:
        return None
    return f"{version.accuracy:.1%} of {version.accuracy_images} images of {version.accuracy_dataset}"


def _parted(name: str) -> tuple[str, int | None]:
    """A model's name, and the version's number where `name@3` names one."""
    model, at, number = name.partition("@")
    if at and not number.isdigit():
        raise typer.BadParameter(f"expected a model, or a version such as {model}@3, got {name!r}", param_hint="NAME")
    return model, int(number) if number else None


def _listed(names: str) -> list[str]:
    return [] if names == "none" else [name.strip() for name in names.split(",") if name.strip()]


def _aliases(model: "Model") -> str:
    return ", ".join(f"{alias}={number}" for alias, number in model.aliases.items())


def _some(names: "tuple[str, ...]") -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
