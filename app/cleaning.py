"""`pnc gc`: list and remove garbage, and purge things that have been archived for too long."""

from collections.abc import Mapping

from rich.console import Console

from app.db import engine
from app.errors import Misconfigured
from app.lifecycle import garbage, retention
from app.lifecycle.garbage import Garbage
from app.lifecycle.retention import Due
from app.settings import Settings
from app.zoo import open_zoo


def clean(settings: Settings, object_seconds: float, *, dry_run: bool, console: Console) -> None:
    """Purge things whose retention time as archived has passed, and remove all garbage. Print one line for each.

    Args:
        settings: Settings of the service.
        object_seconds: Age from which an object without a row is garbage.
        dry_run: Print only, and remove nothing.
        console: Receives the output.

    Raises:
        Misconfigured: a setting is wrong, or the schema is not at the newest revision.
    """
    zoo = open_zoo(settings)
    try:
        problem = engine.outdated(zoo.database)
        if problem is not None:
            raise Misconfigured(f"PNC_DATABASE_URL: {problem}")
        due = retention.find(zoo)
        due_lines = [_due_line(item) for item in due]
        purged = [] if dry_run else retention.purge(zoo, due)
        found = garbage.find(zoo, object_seconds=object_seconds)
        sizes = {key: zoo.store.size(key) for key in found.objects}
        if not dry_run:
            found = garbage.remove(zoo, found, object_seconds=object_seconds)
    finally:
        zoo.close()
    for line in (*due_lines, *_garbage_lines(found, sizes)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if due_lines:
        count = len([item for item in due if not item.obstacles]) if dry_run else len(purged)
        console.print(f"{count} of {len(due)} archived {'would be purged' if dry_run else 'purged'}", highlight=False)
    console.print(f"{_summary(found)} {'would go' if dry_run else 'removed'}", highlight=False)


def _due_line(due: Due) -> str:
    thing = f"{due.kind} {due.name} of {due.workspace} (archived on {due.archived_at:%Y-%m-%d})"
    return f"{thing} stays: {'; '.join(due.obstacles)}" if due.obstacles else thing


def _garbage_lines(found: Garbage, sizes: Mapping[str, int | None]) -> list[str]:
    return [
        *(f"object {key} ({sizes[key]} bytes)" for key in found.objects),
        *(f"transfer {name}" for name in found.transfers),
        *(f"upload {upload}" for upload in found.uploads),
        *(f"file {path}" for path in found.files),
    ]


def _summary(found: Garbage) -> str:
    counts = {"objects": found.objects, "transfers": found.transfers, "uploads": found.uploads, "files": found.files}
    return ", ".join(f"{len(things)} {name}" for name, things in counts.items())
