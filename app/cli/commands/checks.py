"""`pnc models check`."""

from typing import Annotated

import typer

from app.cli import checking, completion
from app.cli.commands.models import app, show_version
from app.cli.screen import DEFAULT_URL, AsJson, Url, connected


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Version: name, name@3 or name@alias.", autocompletion=completion.models)],
    dataset: Annotated[
        str, typer.Option(help="Id of a dataset with images of its classes.", autocompletion=completion.datasets)
    ],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Measure a version on labelled images, and look for a mistake in its registration where the accuracy is low."""
    with connected(url, as_json) as (client, screen):
        version = checking.there(client, screen, client.models.find(name), dataset)
        screen.show(version, lambda: show_version(version))
        checking.end(screen, version.ref, version.check, wanted=True)
