"""Archive and purge for all kinds of resources: show the plan, ask, and delete permanently."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.screen import Exit, Screen, record, size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client.schemas.purges import Purge

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the rows and bytes to delete, and the obstacles.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation; a purge cannot be undone.")]
_FATES = {
    "stored": "would be deleted",
    "gone": "deleted",
    "left": "deleted by the next sweep or by `pnc gc`",
    "kept": "kept: {} has the same bytes",
}


def archived(screen: Screen, noun: str, name: str) -> None:
    """Print that a resource is archived, with the commands that restore or purge it.

    Args:
        screen: The command's screen.
        noun: Command group of the resource, e.g. `models`.
        name: Name or id of the resource.
    """
    advice = f"restore it with `pnc {noun} restore {name}`, or delete it permanently with `pnc {noun} purge {name}`"
    screen.show({"archived": name}, lambda: f"archived {name}; {advice}")


def restored(screen: Screen, name: str) -> None:
    """Print that a resource is restored."""
    screen.show({"restored": name}, lambda: f"restored {name}")


def run(screen: Screen, purge: "Callable[[bool], Purge]", *, dry_run: bool, yes: bool) -> None:
    """Show the plan of a purge, ask for confirmation, and purge.

    Args:
        screen: The command's screen.
        purge: Purges the resource; called with True it only returns the plan.
        dry_run: Show the plan and stop.
        yes: Do not ask.
    """
    if dry_run:
        found = purge(True)
        screen.show(found, lambda: _shown(found))
        return
    if not yes:
        _ask(screen, purge(True))
    done = purge(False)
    screen.show(done, lambda: _shown(done))


def _ask(screen: Screen, planned: "Purge") -> None:
    if screen.as_json:
        screen.fail(
            Exit.USAGE,
            "expected --yes or --dry-run together with --json, got neither; --json cannot ask for confirmation",
        )
    screen.out.print(_shown(planned))
    if not planned.obstacles and planned.purged_at is None:
        typer.confirm("Purge it? This cannot be undone.", abort=True, err=True)


def _shown(found: "Purge") -> "RenderableType":
    heading = "deleted" if found.purged_at else "would be deleted"
    objects = [f"{item.digest[:12]}: {_size(item.bytes)}{_fate(item.fate, item.kept_by)}" for item in found.objects]
    return record(
        {
            found.kind: found.name,
            heading: ", ".join(found.rows) or "no other rows",
            "bytes": "\n".join(objects) or "none",
            "obstacles": "\n".join(problem.detail for problem in found.obstacles) or "none",
        }
    )


def _size(count: int) -> str:
    return f"{size(count)}, " if count else ""


def _fate(fate: str, keeper: str | None) -> str:
    return _FATES.get(fate, fate).format(keeper)
