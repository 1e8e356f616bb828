"""`pnc classes` and `pnc recommend`: find a source in the zoo."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion
from app.cli.commands.jobs import Data, Target
from app.cli.parameters import Classes
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected, table

if TYPE_CHECKING:
    from pnc_client.schemas.jobs import Recommendation


def classes(
    search: Annotated[list[str] | None, typer.Argument(help="Words that a class's name or other name holds.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Leave out the classes of this version and its model.", autocompletion=completion.models),
    ] = None,
    most: Annotated[int, typer.Option(help="Most classes to show.", min=1, max=100)] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Search the classes of all models: which models have them, and how accurate they are."""
    with connected(url, as_json) as (client, screen):
        found = client.jobs.classes(" ".join(search or []), target=target, most=most)
        rows = (
            [one.name, ", ".join(f"{v.version} {_percent(v.accuracy)}".strip() for v in one.versions)]
            for one in found.classes
        )
        screen.show(found, lambda: table(["class", "models"], rows, "no model has such a class; try other words"))
        if found.total > len(found.classes):
            screen.note(f"{found.total - len(found.classes):,} more; add words, or raise --most")


def recommend(
    target: Target,
    dataset: Data,
    classes: Classes,
    most: Annotated[int, typer.Option(help="Most sources that are measured.", min=1, max=24)] = 8,
    go: Annotated[bool, typer.Option("--go", help="Submit a job with the best source.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Rank the models that have some classes as sources for a target; takes up to a minute and clones nothing."""
    from pnc_core.config import CloneConfig

    with connected(url, as_json) as (client, screen):
        found = client.jobs.recommend(target, classes, dataset, most=most)
        columns = ["source", "#expected", "90 %", "#old", "#new", "#probe", "#numbers", "#seconds"]
        screen.show(found, lambda: table(columns, map(_row, found.sources), "no source"))
        screen.note(found.text)
        if found.others:
            screen.note(f"{found.others:,} more models have these classes; raise --most")
        if go and found.best is not None:
            config = CloneConfig(classes=tuple(found.sources[0].classes))
            screen.note(f"submitted {client.jobs.create(target, found.best, dataset, config).id}")


def _row(one: "Recommendation") -> list[object]:
    if one.advice is None:
        return [one.source, "none", one.no_advice, "", "", "", "", ""]
    found = one.advice
    shares = (found.old, found.new, one.probe)
    return [
        one.source, _percent(found.accuracy), f"{_percent(found.low)} to {_percent(found.high)}",
        *map(_percent, shares), f"{found.numbers:,}", f"{max(1.0, found.seconds):.0f}",
    ]  # fmt: skip


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


COMMANDS = (classes, recommend)
