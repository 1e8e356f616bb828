"""`pnc deployments`: targets that are served under a name, with attached modules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion, predicting
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected, local_time, record, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Deployment, Prediction

app = typer.Typer(name="deployments", help="Targets that are served under a name.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of a deployment.", autocompletion=completion.deployments)]
ModuleId = Annotated[str, typer.Argument(help="Id of a module.", autocompletion=completion.modules)]
IfMatch = Annotated[
    int | None, typer.Option(help="Expected generation; the change is refused if the deployment has another.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the deployment.")],
    target: Annotated[
        str, typer.Argument(help="Version: name, name@3 or name@alias.", autocompletion=completion.models)
    ],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Serve a version under a name; repeating the command changes nothing."""
    with connected(url, as_json) as (client, screen):
        made = client.deployments.create(name, target)
        screen.show(made, lambda: shown(made))


@app.command("list")
def list_deployments(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List deployments, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.deployments.list())
        rows = ([d.name, d.desired.target, len(d.desired.modules), d.generation, _state(d)] for d in found)
        empty = "nothing is served yet; serve a model with `pnc deployments create`"
        columns = ["deployment", "target", "#modules", "#generation", "state"]
        screen.show(found, lambda: table(columns, rows, empty))


@app.command()
def show(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a deployment: its desired and its served state."""
    with connected(url, as_json) as (client, screen):
        found = client.deployments.get(name)
        screen.show(found, lambda: shown(found))


@app.command()
def attach(
    name: Name, module: ModuleId, if_match: IfMatch = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Attach a module to a live deployment."""
    with connected(url, as_json) as (client, screen):
        changed = client.deployments.attach(name, module, if_match=if_match)
        screen.show(changed, lambda: shown(changed))


@app.command()
def detach(
    name: Name, module: ModuleId, if_match: IfMatch = None, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Detach a module; the target then predicts exactly as before the module was attached."""
    with connected(url, as_json) as (client, screen):
        changed = client.deployments.detach(name, module, if_match=if_match)
        screen.show(changed, lambda: shown(changed))


@app.command("set")
def set_modules(
    name: Name,
    modules: Annotated[
        list[str] | None, typer.Argument(help="Module ids in the order of attaching; none: detach all modules.")
    ] = None,
    if_match: IfMatch = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Set the attached modules to exactly these, in one revision."""
    with connected(url, as_json) as (client, screen):
        changed = client.deployments.set_modules(name, modules or [], if_match=if_match)
        screen.show(changed, lambda: shown(changed))


@app.command()
def revisions(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the deployment's revisions, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.deployments.revisions(name))
        rows = (
            [
                r.generation,
                r.target,
                ", ".join(r.modules) or "none",
                "refused" if r.refused else "",
                local_time(r.created_at),
            ]
            for r in found
        )
        columns = ["#generation", "target", "modules", "", "created"]
        screen.show(found, lambda: table(columns, rows, "no revisions"))


@app.command()
def replicas(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the running serving processes and the generation that each serves."""
    with connected(url, as_json) as (client, screen):
        found = list(client.deployments.replicas(name))
        rows = ([r.id, r.generation, (r.problem or {}).get("detail", "")] for r in found)
        screen.show(found, lambda: table(["replica", "#generation", "problem"], rows, "no replicas"))


@app.command()
def rollback(
    name: Name,
    generation: Annotated[int, typer.Argument(help="An earlier generation.", min=1)],
    if_match: IfMatch = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Return to the target and modules of an earlier generation; this creates a new generation."""
    with connected(url, as_json) as (client, screen):
        changed = client.deployments.rollback(name, generation, if_match=if_match)
        screen.show(changed, lambda: shown(changed))


@app.command()
def predict(
    name: Name,
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, such as PNG, JPEG, WebP or TIFF, or folders of them.", exists=True),
    ],
    module: Annotated[list[str] | None, typer.Option(help="Predict with this module only; repeatable.")] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Predict with the target alone, without modules.")] = False,
    generation: Annotated[
        int | None,
        typer.Option(help="Predict with an earlier generation, as long as the serving process keeps it.", min=1),
    ] = None,
    module_set: Annotated[
        str | None, typer.Option(help="main: the attached modules; canary: those of the canary.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Number of the most probable classes; default: all.", min=1)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a table to this file, .csv or .parquet.", dir_okay=False)
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Classify images. Several images go in batches, and a file that is no image does not stop the others."""
    if alone and module:
        raise typer.BadParameter("expected --alone or --module, got both", param_hint="--module")
    chosen = [] if alone else module
    modules = chosen or ([] if alone else None)
    with connected(url, as_json) as (client, screen):
        if out is not None or len(images) > 1 or images[0].is_dir():
            if generation is not None or module_set is not None:
                raise typer.BadParameter("expected one image file with --generation or --module-set, got several")
            predicting.predict_files(client, screen, name, images, modules, top, out)
            return
        seen = client.deployments.predict(
            name, images[0], modules=modules, generation=generation, module_set=module_set, top=top
        )
        screen.show(seen, lambda: _prediction(seen))


@app.command()
def delete(name: Name, if_match: IfMatch = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete a deployment; its target is no longer served."""
    with connected(url, as_json) as (client, screen):
        client.deployments.delete(name, if_match=if_match)
        screen.show({"deleted": name}, lambda: f"{name} is no longer served")


def shown(deployment: "Deployment") -> "RenderableType":
    """A deployment, one line for each field."""
    canary = deployment.canary
    rows: dict[str, object] = {
        "deployment": deployment.name,
        "target": deployment.desired.target,
        "modules": "\n".join(deployment.desired.modules) or "none",
        "generation": deployment.generation,
        "state": _state(deployment),
    }
    if canary is not None:
        ids = "\n".join(canary.modules) or "target alone"
        rows["canary"] = f"{canary.mode}, {canary.share:.1%} of the requests\n{ids}"
    if deployment.composition is not None:
        rows["composition"] = deployment.composition
    if deployment.warning is not None:
        rows["warning"] = deployment.warning
    return record(rows)


def _state(deployment: "Deployment") -> str:
    problem = deployment.observed.problem
    if problem is not None and deployment.settled:
        return f"not served: {problem.get('detail', 'no reason given')}"
    return (
        "served" if deployment.settled else f"changing, serving generation {deployment.observed.generation or 'none'}"
    )


def _prediction(prediction: "Prediction") -> "RenderableType":
    rows = (
        [score.name, f"{score.probability:.4f}", f"{score.logit:.3f}", "━" * round(30 * score.probability)]
        for score in prediction.classes[:10]
    )
    return table(["class", "#probability", "#logit", ""], rows, "no classes")
