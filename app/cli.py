"""The `pnc` command. What a command needs is imported inside it, so that help is instant."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

app = typer.Typer(
    name="pnc", help="Model-zoo cloning service: Partial Network Cloning.", no_args_is_help=True, add_completion=True
)
console = Console()
errors = Console(stderr=True)
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept; default: the user's data home.")]


@app.command()
def up(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: loopback.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; default 8000; 0: a free one.", min=0)] = None,
) -> None:
    """Run the embedded service: API, serving and one worker, until Ctrl-C."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from app.up import UpError, up
    from app.zoo.settings import Settings

    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir.resolve() if data_dir else None}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        if not settings.is_loopback:
            errors.print(
                f"[yellow]warning:[/yellow] {settings.host} is not loopback, and there are no keys: whoever "
                "reaches it can use everything",
                soft_wrap=True,
            )
        up(
            settings,
            lambda url: console.print(
                f"ready: {url}  (data: {settings.data_dir}; Ctrl-C ends it)", soft_wrap=True, highlight=False
            ),
        )
    except (ValidationError, SettingsError) as error:
        _fail(f"settings (PNC_* variables and options): {error}")
    except (UpError, OSError) as error:
        _fail(str(error))
    console.print("stopped")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8001,
    data_dir: DataDir = None,
) -> None:
    """Run the serving process alone, e.g. on a host with an accelerator, until Ctrl-C.

    It follows the deployments of the database that PNC_DATABASE_URL names. Give the API its address with
    PNC_SERVING_URL.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from app.zoo.settings import Settings

    try:
        given: dict[str, Any] = {"data_dir": data_dir.resolve()} if data_dir else {}
        settings = Settings(host=host, **given)
    except (ValidationError, SettingsError) as error:
        _fail(f"settings (PNC_* variables and options): {error}")
    from app.asgi import run_alone
    from app.serving.main import create_serving_app

    try:
        run_alone("serving", create_serving_app(settings), settings, host, port)
    except (OSError, ValueError) as error:
        _fail(str(error))


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    hours: Annotated[float, typer.Option(help="Age from which an object that no row names goes.", min=0)] = 1.0,
    data_dir: DataDir = None,
) -> None:
    """Remove objects, uploads and files that nothing refers to; workers do so every hour."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from app.cleaning import clean
    from app.zoo.errors import ZooError
    from app.zoo.settings import Settings

    try:
        settings = Settings(**({"data_dir": data_dir.resolve()} if data_dir else {}))  # type: ignore[arg-type]
        clean(settings, hours * 3600, dry_run=dry_run, console=console)
    except (ValidationError, SettingsError) as error:
        _fail(f"settings (PNC_* variables and options): {error}")
    except (ZooError, OSError) as error:
        _fail(str(error))


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Another seed: other networks, another split.", min=0)] = 0,
    record: Annotated[Path | None, typer.Option(help="Also keep what is shown as an SVG picture.")] = None,
) -> None:
    """Clone three digits from one network into another over HTTP, and take them out again."""
    from app.demo import run

    shown = Console(record=True, width=88) if record else console
    try:
        run(seed, shown)
    finally:
        if record:
            shown.save_svg(str(record), title="make demo")


@app.command()
def inspect(
    architecture: Annotated[str, typer.Argument(help="Name, e.g. resnet20 or torchvision/resnet18.")],
    size: Annotated[int, typer.Option(help="Height and width of the input; 0: 224 for torchvision, else 32.")] = 0,
    classes: Annotated[int, typer.Option(help="How many classes.", min=2)] = 10,
) -> None:
    """Print the positions of an architecture and the channel groups that can be pruned behind its input."""
    from app.inspection import print_network
    from pnc_core.errors import PncError

    try:
        print_network(architecture, size or (224 if "/" in architecture else 32), classes, console)
    except PncError as error:
        _fail(str(error))


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(help="The bundle, full.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Option(help="Weights of the target, safetensors.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .pt2 for torch.export.", dir_okay=False)],
    pixels: Annotated[bool, typer.Option(help="Take uint8 pixels and scale them inside.")] = False,
) -> None:
    """Write a target with a module attached as one ONNX or torch.export file, checked against the network."""
    from pnc_core.errors import PncError

    if out.suffix not in (".onnx", ".pt2"):
        _fail(f"--out: expected a file name ending in .onnx or .pt2, got {out.name!r}")
    try:
        from pnc_core import attach, load_network, read_bundle, to_onnx, to_pt2
    except ModuleNotFoundError as error:
        _fail(f"{error}; install what is missing with: pip install 'pnc-zoo[onnx]'")
    try:
        read = read_bundle(bundle)
        spec = read.manifest.target
        composed = attach(load_network(spec, target), read)
        write = to_onnx if out.suffix == ".onnx" else to_pt2
        write(composed, spec, out, pixels=pixels)
    except (PncError, OSError) as error:
        _fail(str(error))
    console.print(f"{out}: {len(composed.classes)} classes: {', '.join(composed.classes)}", highlight=False)


@app.command()
def evidence(
    bundle: Annotated[Path, typer.Argument(help="The bundle, thin or full.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Option(help="Weights of the target, safetensors.", exists=True, dir_okay=False)],
    source: Annotated[Path, typer.Option(help="Weights of the source, safetensors.", exists=True, dir_okay=False)],
    data: Annotated[Path, typer.Option(help="Images to judge on: a directory a class, or Parquet.", exists=True)],
    out: Annotated[Path, typer.Option(help="Directory for evidence.json and the pictures.", file_okay=False)],
    trials: Annotated[
        Path | None, typer.Option(help="A job's trials as JSON: also draw its positions.", exists=True, dir_okay=False)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repetitions of the masking curve; 0 leaves it out.", min=0)] = 3,
    epochs: Annotated[int, typer.Option(help="Epochs of feature matching after every cut.", min=0, max=1000)] = 3,
) -> None:
    """Verify a bundle and show what it is worth, with numbers and pictures. Needs images it has not seen."""
    try:
        from app.evidence import Request, run
        from app.zoo.errors import ZooError
        from pnc_core.errors import PncError
    except ModuleNotFoundError as error:
        _fail(f"{error}; install what is missing with: pip install 'pnc-zoo[server,plots]'")
    request = Request(
        bundle=bundle, target=target, source=source, data=data, out=out, trials=trials, seeds=seeds, epochs=epochs
    )
    try:
        run(request, console)
    except (PncError, ZooError, OSError, ValueError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    errors.print("[red]error:[/red] ", end="")
    errors.print(message, highlight=False, markup=False, soft_wrap=True)
    sys.exit(1)


def main() -> None:
    """Entry point of the `pnc` command."""
    app()


if __name__ == "__main__":
    main()
