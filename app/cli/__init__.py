"""The `pnc` command. What a command needs is imported inside it, so that help is instant."""

import typer

from app.cli import access, cloning, datasets, deployments, files, jobs, models, modules, service, webhooks

app = typer.Typer(
    name="pnc",
    help="Model-zoo cloning service: Partial Network Cloning.",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a job or a version did not succeed; 4 the service refused; "
    "5 the service does not answer; 130 interrupted.",
    no_args_is_help=True,
    add_completion=True,
)
PARTS = (models, datasets, jobs, modules, deployments, webhooks)
for part in (*(part.app for part in PARTS), access.keys, access.workspaces):
    app.add_typer(part)
for command in (*cloning.COMMANDS, *service.COMMANDS, *files.COMMANDS, *access.COMMANDS):
    app.command()(command)


def main() -> None:
    """Entry point of the `pnc` command."""
    app()
