"""Parameters of a cloning job on the command line."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pnc_core.config import CloneConfig

Classes = Annotated[list[str], typer.Option("--class", "-c", help="Class to clone; repeatable.")]
Preset = Annotated[str | None, typer.Option(help="joint, or fast: only what has a closed form.")]
Keep = Annotated[float | None, typer.Option(help="Share of the cloned tail that is kept, e.g. 0.5.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of feature matching.")]
Seed = Annotated[int | None, typer.Option(help="Of every random choice.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Any other parameter, e.g. locality=strict; repeatable.")
]
Parameters = Annotated[
    Path | None, typer.Option("--config", help="Parameters as JSON; options go before them.", exists=True)
]


def parameters(classes: list[str], file: Path | None, settings: list[str] | None, **options: Any) -> "CloneConfig":
    """The job's parameters: those of a file, then `--set`, then options of their own.

    Raises:
        ConfigError: a name is unknown, or a value is out of its range.
    """
    from pnc_core.config import CloneConfig
    from pnc_core.errors import BundleError, ConfigError
    from pnc_core.module.manifest import build

    given = _read(file) if file else {}
    given |= dict(_setting(text) for text in settings or [])
    given |= {name: value for name, value in options.items() if value is not None}
    given["classes"] = classes
    try:
        return build(CloneConfig, given, "parameters")
    except BundleError as error:
        raise ConfigError(str(error)) from None


def _read(file: Path) -> dict[str, Any]:
    from pnc_core.errors import ConfigError

    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: expected JSON, got text that does not parse ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: expected an object of parameters, got {type(value).__name__}")
    return value


def _setting(text: str) -> tuple[str, Any]:
    """`keep=0.5` as a name and a JSON value; what is no JSON is text."""
    from pnc_core.errors import ConfigError

    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--set: expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
