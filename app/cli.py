"""The `pnc` command. What a command needs is imported inside it, so that help is instant."""

import sys
from pathlib import Path
from typing import Annotated, Any

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
    host: Annotated[str, typer.Option(help="Address to listen on; only loopback is safe without keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.", min=0, max=65535)] = 8000,
) -> None:
    """Run the embedded service: API, serving and one worker, until Ctrl-C."""
    from app.up import UpError, up
    from app.zoo.settings import Settings

    given: dict[str, Any] = {"host": host, "port": port, **({"data_dir": data_dir.resolve()} if data_dir else {})}
    settings = Settings(**given)
    try:
        up(settings, lambda url: console.print(f"ready: {url}  (API docs: {url}/docs, data: {settings.data_dir})"))
    except UpError as error:
        _fail(str(error))
    console.print("stopped")


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
    size: Annotated[int, typer.Option(help="Height and width of the input.")] = 0,
    classes: Annotated[int, typer.Option(help="How many classes.", min=2)] = 10,
) -> None:
    """Print the positions of an architecture and the channel groups that can be pruned behind its input."""
    from app.inspection import print_network
    from pnc_core.errors import PncError

    try:
        print_network(architecture, size or (224 if "/" in architecture else 32), classes, console)
    except PncError as error:
        _fail(str(error))


def _fail(message: str) -> None:
    errors.print(f"[red]error:[/red] {message}", highlight=False)
    sys.exit(1)


def main() -> None:
    """Entry point of the `pnc` command."""
    app()


if __name__ == "__main__":
    main()
