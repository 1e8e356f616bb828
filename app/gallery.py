"""`pnc gallery`: fill an empty zoo with small real networks, images, a module and a deployment.

The networks are trained on scikit-learn's scans of handwritten digits, in seconds. Everything is
registered through the client.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rich.console import Console

from app.demo import DIGITS, HIGH, LOW, Network, handwritten, png, png_rows, progress_on, trained
from pnc_client import Client, Dataset, Job
from pnc_client.parquet import write_parquet
from pnc_core.config import CloneConfig
from pnc_core.images import ImageSet

LICENCE = "Apache-2.0"
EVEN = DIGITS[::2]
CLONED = ("7", "8", "9")
UNSEEN_SHARE, TRIED_SHARE = 0.4, 0.2
"""Share of images on which no network is trained, and the part of them for a prediction. The job gets the others."""
DEPLOYMENT = "digits"


class NotEmpty(Exception):
    """The zoo already has models."""


@dataclass(frozen=True)
class Exhibit:
    """A network of the gallery."""

    name: str
    classes: tuple[str, ...]
    description: str


_CARD = """{first}

## Trained on

60 % of the images of its classes in scikit-learn's 1,797 handwritten digits (8 × 8 pixels, grey), for a few seconds on
this machine. The dataset `digits` holds other images.

## Good for

Trying the service: a cloning job with this network takes seconds.

## Not good for

Photographed or rotated digits, and images of more than 8 × 8 pixels.
"""
_FIRST = {
    "digits-low": (LOW, "Handwritten digits 0 to 4, a small convolutional network"),
    "digits-high": (HIGH, "Handwritten digits 5 to 9, the source of the first module"),
    "digits-even": (EVEN, "Even handwritten digits; shares classes with both others"),
}
EXHIBITS = tuple(Exhibit(name, classes, _CARD.format(first=first)) for name, (classes, first) in _FIRST.items())


def fill(
    client: Client, console: Console, *, seed: int = 0, anyway: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train, register, clone and serve.

    Args:
        client: Client of a running service.
        console: Receives the progress.
        seed: Seed of networks, split and job.
        anyway: Fill a zoo that already has models.
        quiet: Show no progress.

    Returns:
        Names and ids of the models, the dataset, the job, the module and the deployment.

    Raises:
        NotEmpty: the zoo has models, and `anyway` is false.
        ClientError: the service refuses a request.
    """
    if not anyway and next(client.models.list(), None) is not None:
        raise NotEmpty(f"expected an empty zoo at {client.url}, got one with models; --anyway adds to it")
    generator = torch.Generator().manual_seed(seed)
    learned, unseen = handwritten().split(UNSEEN_SHARE, generator)
    given, tried = unseen.split(TRIED_SHARE, generator)
    torch.set_num_threads(1)  # several threads slow down networks of this size
    with progress_on(console, quiet=quiet) as progress:
        networks = [
            trained(learned.only(exhibit.classes), generator, progress, f"training {exhibit.name}")
            for exhibit in EXHIBITS
        ]
    with tempfile.TemporaryDirectory(prefix="pnc-gallery-") as folder:
        for exhibit, network in zip(EXHIBITS, networks, strict=True):
            _register(client, exhibit, network, Path(folder))
        dataset = _images(client, given, Path(folder))
    job = client.jobs.create("digits-low", "digits-high", dataset.id, CloneConfig(classes=CLONED, seed=seed, epochs=20))
    job = _watched(job, console, quiet=quiet)
    return _served(client, job, dataset, tried)


def _register(client: Client, exhibit: Exhibit, network: Network, folder: Path) -> None:
    path = folder / f"{exhibit.name}.safetensors"
    safetensors.torch.save_file(network[0].state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps(network[1].to_dict()))
    version = client.models.push(
        exhibit.name, network[1], path, licence=LICENCE, description=exhibit.description
    ).wait()
    client.models.set_alias(exhibit.name, "production", version.number)


def _images(client: Client, images: ImageSet, folder: Path) -> Dataset:
    write_parquet(folder / "digits.parquet", png_rows(images), DIGITS)
    return client.datasets.push(folder / "digits.parquet")


def _watched(job: Job, console: Console, *, quiet: bool) -> Job:
    with progress_on(console, quiet=quiet) as progress:
        task = progress.add_task("cloning 7, 8, 9", total=1.0)
        return job.wait(progress=lambda share, message: progress.update(task, completed=share))


def _served(client: Client, job: Job, dataset: Dataset, tried: ImageSet) -> dict[str, Any]:
    """Serve the target with the module, and predict one image for the first statistics."""
    module = job.result()
    deployment = client.deployments.create(DEPLOYMENT, "digits-low").attach(module).wait()
    seen = deployment.predict(png(tried.only(["7"]).images[0]))
    return {
        "models": [exhibit.name for exhibit in EXHIBITS],
        "dataset": dataset.id,
        "job": job.id,
        "module": module.id,
        "deployment": deployment.name,
        "a_seven_is_seen_as": seen.classes[0].name,
    }
