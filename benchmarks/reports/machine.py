"""Resolves `auto` to a device and a precision, prints them, and writes them beside the results."""

import json
from pathlib import Path
from typing import get_args

import torch
import typer
from rich.console import Console

from pnc_core.config import Precision
from pnc_core.devices import device_of, precision_of, slow_bfloat16
from pnc_core.errors import ConfigError

FILE = "machine.json"


def resolve(device: str, precision: str, out: Path, console: Console) -> tuple[str, str]:
    """Resolve device and precision for a whole run, and write both to `machine.json` beside the results.

    Args:
        device: `auto`, `cpu` or `cuda`.
        precision: `auto`, `bfloat16` or `float32`.
        out: The run's folder.
        console: Prints the choice, and a warning where bfloat16 is slower than float32.

    Raises:
        typer.BadParameter: this machine has no such device, or the precision is unknown.
    """
    if precision not in get_args(Precision):
        raise typer.BadParameter(f"precision: expected one of {get_args(Precision)}, got {precision!r}")
    try:
        device = device_of(device)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    chosen = precision_of(precision, device)  # type: ignore[arg-type]
    slow = slow_bfloat16(chosen, device)
    if slow is not None:
        console.print(slow)
    console.print(f"on {device} in {chosen}")
    out.mkdir(parents=True, exist_ok=True)
    facts = {"device": device, "precision": chosen, "torch": torch.__version__}
    (out / FILE).write_text(json.dumps(facts, indent=2) + "\n")
    return device, chosen
