"""Options for the parameters of a cloning job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pnc_core.config import CloneConfig

Classes = Annotated[list[str], typer.Option("--class", "-c", help="Class to clone; repeatable.")]
Preset = Annotated[str | None, typer.Option(help="joint, or fast: only steps with a closed form.")]
Keep = Annotated[float | None, typer.Option(help="Share of the source's tail that the module keeps, e.g. 0.5.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of feature matching.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Any other parameter, e.g. locality=strict; repeatable.")
]
Parameters = Annotated[
    Path | None, typer.Option("--config", help="File with parameters as JSON; options override it.", exists=True)
]


def parameters(classes: list[str], file: Path | None, settings: list[str] | None, **options: Any) -> "CloneConfig":
    """The parameters of a job. `--set` overrides the file, and the other options override `--set`.

    Raises:
        ConfigError: a name is unknown, or a value is out of its range.
    """
    from app.local.specs import name_and_value, read_object
    from pnc_core.config import CloneConfig
    from pnc_core.errors import BundleError, ConfigError
    from pnc_core.module.manifest import build

    given = read_object(file, "the parameters of a job") if file else {}
    given |= dict(name_and_value("--set", text) for text in settings or [])
    given |= {name: value for name, value in options.items() if value is not None}
    given["classes"] = classes
    try:
        return build(CloneConfig, given, "parameters")
    except BundleError as error:
        raise ConfigError(str(error)) from None
