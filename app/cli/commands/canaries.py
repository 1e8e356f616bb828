"""`pnc deployments canary`: a second set of modules on a share of a deployment's requests."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.commands import deployments
from app.cli.commands.deployments import IfMatch, Name, shown
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected, record

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client.schemas.canaries import Canary

app = typer.Typer(
    name="canary", help="A second set of modules on a share of a deployment's requests.", no_args_is_help=True
)
deployments.app.add_typer(app)


@app.command("set")
def set_canary(
    name: Name,
    modules: Annotated[
        list[str] | None, typer.Argument(help="Ids of all modules of the canary; none: the target alone.")
    ] = None,
    share: Annotated[float, typer.Option(help="Share of the requests, 0 to 1.", min=0, max=1)] = 0.1,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Only run the modules on the share, and answer nothing with them.")
    ] = False,
    if_match: IfMatch = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Start a canary, or change its modules, share or mode."""
    with connected(url, as_json) as (client, screen):
        mode = "shadow" if shadow else "canary"
        changed = client.deployments.put_canary(name, modules or [], share=share, mode=mode, if_match=if_match)
        screen.show(changed, lambda: shown(changed))


@app.command()
def show(name: Name, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a canary, and how its answers compare with those of the attached modules."""
    with connected(url, as_json) as (client, screen):
        found = client.deployments.canary(name)
        screen.show(found, lambda: _canary(found))


@app.command()
def promote(name: Name, if_match: IfMatch = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Attach exactly the modules of the canary, and end it, in one revision."""
    with connected(url, as_json) as (client, screen):
        changed = client.deployments.promote_canary(name, if_match=if_match)
        screen.show(changed, lambda: shown(changed))


@app.command()
def end(name: Name, if_match: IfMatch = None, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """End a canary; the attached modules answer all requests again."""
    with connected(url, as_json) as (client, screen):
        changed = client.deployments.end_canary(name, if_match=if_match)
        screen.show(changed, lambda: shown(changed))


def _canary(canary: "Canary") -> "RenderableType":
    counts = canary.counts
    difference = counts.mean_logit_difference
    return record(
        {
            "modules": "\n".join(canary.modules) or "none",
            "mode": canary.mode,
            "share": f"{canary.share:.1%}",
            "requests": f"{counts.main_requests} by the attached modules, {counts.canary_requests} by the canary",
            "compared images": f"{counts.agreed} agree, {counts.differed} differ",
            "mean difference": None if difference is None else f"{difference:.4g} (largest difference of a logit)",
            "not compared": f"{counts.dropped} dropped, {counts.failed} failed",
        }
    )
