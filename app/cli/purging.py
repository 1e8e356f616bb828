"""Away with things of every kind: archived, and what leads on from there; or for good, after a look and a question."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.screen import Exit, Screen, record, size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client.schemas.purges import Purge

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and what stands in the way.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; it cannot be taken back.")]
_FATES = {
    "stored": "would go",
    "gone": "gone",
    "left": "left to the next sweep, or `pnc gc`",
    "kept": "stays: {} has the same",
}


def archived(screen: Screen, noun: str, name: str) -> None:
    """Say that something is archived, and what can be done with it.

    Args:
        screen: Where to say it.
        noun: Whose commands bring it back or remove it.
        name: What they call it.
    """
    advice = f"`pnc {noun} restore {name}` brings it back, `pnc {noun} purge {name}` removes it for good"
    screen.show({"archived": name}, lambda: f"archived {name}; {advice}")


def run(screen: Screen, purge: "Callable[[bool], Purge]", *, dry_run: bool, yes: bool) -> None:
    """Show what would go, ask, and purge.

    Args:
        screen: Where to show and to ask.
        purge: Purges, or plans to when it is given True.
        dry_run: Only show it.
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
        screen.fail(Exit.USAGE, "expected --yes or --dry-run beside --json, got neither; a program cannot be asked")
    screen.out.print(_shown(planned))
    if not planned.obstacles and planned.purged_at is None:
        typer.confirm("Purge it? This cannot be taken back.", abort=True, err=True)


def _shown(found: "Purge") -> "RenderableType":
    goes = "gone" if found.purged_at else "would go"
    bytes_of = [f"{one.digest[:12]}: {_size(one.bytes)}{_fate(one.fate, one.kept_by)}" for one in found.objects]
    return record(
        {
            found.kind: found.name,
            goes: ", ".join(found.rows) or "nothing more",
            "bytes": "\n".join(bytes_of) or "none",
            "in the way": "\n".join(problem.detail for problem in found.obstacles) or "nothing",
        }
    )


def _size(count: int) -> str:
    return f"{size(count)}, " if count else ""


def _fate(fate: str, keeper: str | None) -> str:
    return _FATES.get(fate, fate).format(keeper)
