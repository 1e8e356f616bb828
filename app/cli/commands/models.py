"""`pnc models`: registered networks and their versions."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import checking, completion, purging
from app.cli.screen import DEFAULT_URL, AsJson, Exit, Screen, Url, connected, failures, local_time, record, size, table
from app.cli.weights import chosen_weights, network_and_weights
from app.models.card import first_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Model, Version
    from pnc_client.schemas.purges import Purge

app = typer.Typer(name="models", help="Registered networks and their versions.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of a model.", autocompletion=completion.models)]
Taken = Annotated[
    str | None, typer.Option("--weights", help="Where a file has both: plain, or ema for the moving average.")
]
KeyMap = Annotated[
    Path | None,
    typer.Option(help="JSON with new names by old ones, of tensors or layers; null: left out.", exists=True),
]
MOST_CLASSES = 10
"""A version with more classes is shown with its first six."""
Number = Annotated[int, typer.Argument(help="Number of a version.", min=1)]


@app.command()
def push(
    name: Annotated[str, typer.Argument(help="Name of the model; a new name registers a model.")],
    weights: Annotated[Path, typer.Argument(help="Weights: safetensors, or any checkpoint of torch.", exists=True)],
    spec: Annotated[
        Path | None,
        typer.Option(
            help="Spec of the network as JSON; default: the file beside the weights that ends in .json.", exists=True
        ),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Without a file: name, e.g. cifar/resnet20; by default found by the tensors.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names in the order of the logits: by commas, a file of names, or cifar10 or cifar100."
        ),
    ] = None,
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
    option: Annotated[
        list[str] | None, typer.Option("--option", "--set", help="Of the architecture, e.g. width=32; repeatable.")
    ] = None,
    take: Taken = None,
    key_map: KeyMap = None,
    check: checking.Images = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "",
    description: Annotated[str, typer.Option(help="Description of a new model.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until a worker has checked the version.")] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Upload weights as the next version of a model; without a spec the tensors tell the architecture."""
    with connected(url, as_json) as (client, screen):
        fields = {"architecture": architecture, "classes": classes, "input_size": input_size, "mean": mean, "std": std}
        rule: dict[str, str | float | bool | None] = {
            "resize": resize,
            "resize_size": resize_size,
            "crop_share": crop_share,
            "interpolation": interpolation,
            "antialias": antialias,
            "channel_order": channel_order,
            "value_range": value_range,
        }
        given, later = spec or weights.with_suffix(".json"), checking.finds_scaling(check, mean, std)
        asked = given, fields, option or [], rule, take, key_map
        with network_and_weights(screen, weights, *asked, scaling_later=later) as (network, file):
            network, found = checking.here(screen, network, file, check, scaling=later)
            with screen.bar(f"sending {weights.name}") as progress:
                version = client.models.push(
                    name, network, file, licence=licence, description=description, progress=progress
                )
        if wait or check:
            screen.note(f"{version.ref}: waiting for a worker to try it")
            version = version.wait()
        version = checking.there(client, screen, version, check)
        screen.show(version, lambda: show_version(version))
        checking.end(screen, version.ref, found or version.check, wanted=check is not None)


@app.command()
def identify(
    weights: Annotated[Path, typer.Argument(help="Weights: safetensors, or any checkpoint of torch.", exists=True)],
    take: Taken = None,
    key_map: KeyMap = None,
    as_json: AsJson = False,
) -> None:
    """Find the architecture of a file of weights by its tensors; nothing is sent."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.bringing import opened
        from app.local.identifying import described, shown

        file = opened(weights, chosen_weights(take), key_map)
        for text in file.notes:
            screen.note(text)
        found = file.identify()
        screen.show(described(weights, found, file.notes), lambda: shown(weights, found))
        if not found.fits:
            raise typer.Exit(Exit.FAILED)


@app.command("list")
def list_models(
    archived: Annotated[bool, typer.Option("--archived", help="Include archived models.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List models, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.models.list(archived=archived))
        rows = (
            [m.name, m.last_version, _aliases(m), local_time(m.created_at), first_line(m.description)[:60]]
            for m in found
        )
        empty = "no models yet; upload a model with `pnc models push`, or fill the zoo with `pnc gallery`"
        screen.show(found, lambda: table(["model", "#versions", "aliases", "registered", "description"], rows, empty))


@app.command()
def show(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a model with all versions, including archived ones; `name@3` or `name@alias` shows that version only."""
    with connected(url, as_json) as (client, screen):
        if "@" in name:
            version = client.models.find(name)
            names = _names_of(client.models.get(name.partition("@")[0]), version.number)
            screen.show(version, lambda: show_version(version, names))
            return
        found, versions = client.models.get(name), list(client.models.versions(name, archived=True))
        document = {**found.model_dump(mode="json"), "versions": [v.model_dump(mode="json") for v in versions]}
        screen.show(document, lambda: _model(found))
        if not as_json:
            rows = (
                [
                    *(v.number, _names_of(found, v.number), _status(v), v.spec.architecture),
                    *(_first_classes(v.spec.classes), size(v.bytes)),
                ]
                for v in versions
            )
            columns = ["#version", "aliases", "status", "architecture", "classes", "#size"]
            screen.out.print(table(columns, rows, "no versions yet; upload a version with `pnc models push`"))


@app.command("classes")
def list_classes(
    name: Annotated[str, typer.Argument(help="Version: name, name@3 or name@alias.", autocompletion=completion.models)],
    search: Annotated[
        list[str] | None, typer.Argument(help="Words that a class's name or other name holds; #12: the class 12.")
    ] = None,
    most: Annotated[int, typer.Option(help="Most classes to show; 0: all.", min=0)] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List or search the classes of a version. A job may name a class by its name, other name or number."""
    with connected(url, as_json) as (client, screen):
        version = client.models.find(name)
        found = client.models.classes(name.partition("@")[0], version.number, " ".join(search or []))
        shown = list(islice(found, most or None))
        rows = ([f"#{c.number}", c.name, ", ".join(c.aliases)] for c in shown)
        empty = f"no such class among the {len(version.spec.classes):,} of {version.ref}; try other words"
        screen.show(shown, lambda: table(["#number", "class", "other names"], rows, empty))
        if most and next(found, None) is not None:
            screen.note(f"{version.ref} has more such classes; add words, or --most 0 for all classes")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Unique name.")],
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Register a model without versions; `push` does this too."""
    with connected(url, as_json) as (client, screen):
        model = client.models.create(name, description)
        screen.show(model, lambda: _model(model))


@app.command()
def edit(
    name: Name,
    description: Annotated[str | None, typer.Option(help="New model card in Markdown.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="File with the new model card.", exists=True, dir_okay=False)
    ] = None,
    archived: Annotated[bool | None, typer.Option("--archive/--restore", help="Archive or restore.")] = None,
    clonable: Annotated[
        str | None,
        typer.Option(help="Classes that jobs may clone from the model, separated by commas; or `all`, or `none`."),
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Change a model's card or its clonable classes, or archive or restore the model."""
    if card is not None and description is not None:
        raise typer.BadParameter("expected --card or --description, got both", param_hint="--card")
    with connected(url, as_json) as (client, screen):
        text = card.read_text(encoding="utf-8") if card is not None else description
        classes = None if clonable is None else "all" if clonable == "all" else _split(clonable)
        model = client.models.change(name, description=text, archived=archived, clonable=classes)
        screen.show(model, lambda: _model(model))


@app.command()
def delete(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Archive a model or one version, `name@3`: lists hide it and new jobs cannot use it; deployments continue."""
    with connected(url, as_json) as (client, screen):
        model, number = _name_and_number(name)
        if number is None:
            client.models.archive(model)
        else:
            client.models.archive_version(model, number)
        purging.archived(screen, "models", name)


@app.command()
def restore(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Restore an archived model or one version, `name@3`."""
    with connected(url, as_json) as (client, screen):
        model, number = _name_and_number(name)
        if number is None:
            client.models.change(model, archived=False)
        else:
            client.models.change_version(model, number, archived=False)
        purging.restored(screen, name)


@app.command()
def purge(
    name: Name,
    dry_run: purging.DryRun = False,
    yes: purging.Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Delete an archived model with its versions, or one version `name@3`, permanently; needs the scope admin."""
    with connected(url, as_json) as (client, screen):
        model, number = _name_and_number(name)

        def delete_permanently(planned: bool) -> "Purge":
            if number is None:
                return client.models.purge(model, dry_run=planned)
            return client.models.purge_version(model, number, dry_run=planned)

        purging.run(screen, delete_permanently, dry_run=dry_run, yes=yes)


@app.command()
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="Name of the alias, used as model@alias.")],
    version: Annotated[
        int | None, typer.Argument(help="Number of the version that the alias points at.", min=1)
    ] = None,
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
            screen.show({"deleted": alias}, lambda: f"deleted the alias {name}@{alias}")
        else:
            made = client.models.set_alias(name, alias, version)
            screen.show(made, lambda: f"{name}@{alias} now points at {name}@{version}")


def _model(model: "Model") -> "RenderableType":
    return record(
        {
            "model": model.name,
            "id": model.id,
            "description": model.description,
            "versions": model.last_version,
            "aliases": _aliases(model),
            "clonable": "all" if model.clonable is None else ", ".join(model.clonable) or "none",
            "registered": local_time(model.created_at),
            "archived": local_time(model.archived_at) if model.archived_at else "no",
        }
    )


def _status(version: "Version") -> str:
    """The state, and beside `ready` what the newest check says if it complains."""
    outcome = version.check.outcome if version.check else "fine"
    complaint = {"suspect": ", suspect", "near_chance": ", near chance"}.get(outcome, "")
    return "archived" if version.archived_at else version.status + complaint


def show_version(version: "Version", aliases: str = "") -> "RenderableType":
    """Fields of a version, one per line."""
    spec = version.spec
    problem = (version.problem or {}).get("detail")
    return record(
        {
            "version": version.ref,
            "aliases": aliases,
            "status": f"{version.status}: {problem}" if problem else _status(version),
            "architecture": " ".join([spec.architecture, *(f"{k}={v}" for k, v in spec.options.items())]),
            "classes": _first_classes(spec.classes) + _search_hint(version),
            "input": " x ".join(map(str, spec.input_size)),
            "preprocessing": spec.preprocessing.describe(spec.input_size),
            "mean": ", ".join(f"{value:g}" for value in spec.mean),
            "std": ", ".join(f"{value:g}" for value in spec.std),
            "size": size(version.bytes),
            "parameters": f"{version.parameters:,}" if version.parameters is not None else None,
            "macs": f"{version.macs:,}" if version.macs is not None else None,
            "accuracy": _accuracy(version),
            "check": checking.described(version),
            "fingerprint": version.fingerprint,
            "licence": version.licence,
            "origin": _origin(version),
            "added": local_time(version.created_at),
            "archived": local_time(version.archived_at) if version.archived_at else "no",
        }
    )


def _origin(version: "Version") -> str | None:
    origin = version.origin
    if origin is None:
        return None
    known = {"revision": origin.revision, "url": origin.url, "file": origin.file, "sha256": origin.digest}
    return "\n".join([origin.source, *(f"{name} {value}" for name, value in known.items() if value)])


def _accuracy(version: "Version") -> str | None:
    if version.accuracy is None:
        return None
    return f"{version.accuracy:.1%} of {version.accuracy_images} images of {version.accuracy_dataset}"


def _name_and_number(name: str) -> tuple[str, int | None]:
    """A model's name, and the version's number if the text is `name@3`."""
    model, at, number = name.partition("@")
    if at and not number.isdigit():
        raise typer.BadParameter(f"expected a model, or a version such as {model}@3, got {name!r}", param_hint="NAME")
    return model, int(number) if number else None


def _split(names: str) -> list[str]:
    return [] if names == "none" else [name.strip() for name in names.split(",") if name.strip()]


def _aliases(model: "Model") -> str:
    return ", ".join(f"{alias}={number}" for alias, number in model.aliases.items())


def _names_of(model: "Model", version: int) -> str:
    """The aliases that point at a version."""
    return ", ".join(alias for alias, number in model.aliases.items() if number == version)


def _first_classes(names: "tuple[str, ...]") -> str:
    if len(names) <= MOST_CLASSES:
        return ", ".join(names)
    return f"{', '.join(names[:6])} and {len(names) - 6:,} more"


def _search_hint(version: "Version") -> str:
    is_long = len(version.spec.classes) > MOST_CLASSES
    return f"; search them with `pnc models classes {version.ref}`" if is_long else ""
