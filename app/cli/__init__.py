"""The `pnc` command. Each command imports its dependencies inside its function, so that `--help` starts fast."""

import io
import sys
from typing import Any

import typer
from rich.markup import escape

from app.cli.commands import (
    access,
    canaries,
    checks,
    cloning,
    datasets,
    deployments,
    files,
    importing,
    jobs,
    models,
    modules,
    service,
    sources,
    webhooks,
)
from app.cli.screen import Exit, Screen, what_to_install

app = typer.Typer(
    name="pnc",
    help="Model-zoo cloning service: Partial Network Cloning.",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a job or a version did not succeed; 4 the service refused; "
    "5 the service does not answer; 130 interrupted.",
    no_args_is_help=True,
    add_completion=True,
)
ADDING = (checks, importing, canaries)
"""Modules that add their commands to those of `pnc models` and `pnc deployments`."""
GROUPS: dict[str, tuple[Any, ...]] = {
    "The zoo of a service": (models.app, datasets.app, jobs.app, modules.app, deployments.app, webhooks.app),
    "Finding a source": sources.COMMANDS,
    "Keys": (*access.COMMANDS, access.keys, access.workspaces),
    "Files, without a service": (*cloning.COMMANDS, *files.COMMANDS),
    "Running a service": service.COMMANDS,
    "Trying it out": service.TRYING,
}
"""Commands and groups of commands, by the title under which `pnc --help` lists them."""
for title, members in GROUPS.items():
    for member in members:
        if isinstance(member, typer.Typer):
            app.add_typer(member, rich_help_panel=title)
        else:
            app.command(rich_help_panel=title)(member)


def main() -> None:
    """Entry point of the `pnc` command."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # the code page of a Windows pipe lacks most characters
    from app.process import children
    from app.process.resources import processors

    children.shield_children()
    processors.begin()
    try:
        app()
    except ModuleNotFoundError as error:
        Screen().notes.print(f"[red]error:[/red] {escape(what_to_install(error))}", soft_wrap=True)
        sys.exit(Exit.FAILED)
