"""Checks of networks on labelled images, for `pnc models push --check` and `pnc models check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import completion
from app.cli.screen import Exit, Screen

if TYPE_CHECKING:
    from pnc_client import Client, Version
    from pnc_client.schemas.checks import VersionCheck
    from pnc_core.config import NetworkSpec

Images = Annotated[
    str | None,
    typer.Option(
        "--check",
        help="Labelled images to check it on: a directory per class, a Parquet file, or the id of a dataset.",
        autocompletion=completion.datasets,
    ),
]


def finds_scaling(images: str | None, mean: str | None, std: str | None) -> bool:
    """Whether a check has to find mean and standard deviation: images are on this machine, and neither is given."""
    return images is not None and Path(images).exists() and mean is None and std is None


def here(
    screen: Screen, spec: "NetworkSpec", weights: Path, images: str | None, *, scaling: bool
) -> "tuple[NetworkSpec, VersionCheck | None]":
    """Check a network on images of this machine, if the images are a path.

    Args:
        screen: Shows the result.
        spec: Description of the network.
        weights: Safetensors.
        images: A path, the id of a dataset, or None.
        scaling: Mean and standard deviation may be unknown.

    Returns:
        The spec, with mean and standard deviation if the check found them; and the result, None without a path.
    """
    if images is None or not Path(images).exists():
        return spec, None
    from app.local.checking import checked
    from pnc_client.schemas.checks import VersionCheck

    screen.note(f"checking on {images}")
    spec, result = checked(spec, weights, Path(images), screen.note, scaling=scaling)
    found = VersionCheck.model_validate(result)
    screen.note(found.detail)
    return spec, found


def there(client: "Client", screen: Screen, version: "Version", dataset: str | None) -> "Version":
    """Have a worker check a version, if `dataset` is the id of a dataset."""
    if dataset is None or Path(dataset).exists():
        return version
    screen.note(f"{version.ref}: a worker checks it on {dataset}")
    checked = client.models.check_on(version.ref.partition("@")[0], version.number, dataset)
    screen.note(checked.check.detail if checked.check else "no result")
    return checked


def end(screen: Screen, ref: str, found: "VersionCheck | None", *, wanted: bool) -> None:
    """End the command with an exit code of its own if a check was wanted and it complains."""
    if wanted and found is not None and found.outcome != "fine":
        screen.note(f"{ref}: the check says {found.outcome.replace('_', ' ')}")
        raise typer.Exit(int(Exit.NOT_SUCCEEDED))


def described(version: "Version") -> str | None:
    """The newest check of a version in one line."""
    if version.checking:
        return f"waiting for a worker, on {version.checking}"
    return f"{version.check.detail} ({version.check.dataset})" if version.check else None
