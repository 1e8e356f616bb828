"""Shell completion: names that the service knows; nothing when it does not answer at once."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from app.cli.screen import DEFAULT_URL

if TYPE_CHECKING:
    from pnc_client import Client

SECONDS = 1.0
MOST = 200
"""Names that are offered at most."""


def models(incomplete: str) -> list[str]:
    """Names of models."""
    return _matching(incomplete, lambda client: (model.name for model in client.models.list()))


def datasets(incomplete: str) -> list[str]:
    """Ids of datasets."""
    return _matching(incomplete, lambda client: (dataset.id for dataset in client.datasets.list()))


def jobs(incomplete: str) -> list[str]:
    """Ids of jobs."""
    return _matching(incomplete, lambda client: (job.id for job in client.jobs.list()))


def modules(incomplete: str) -> list[str]:
    """Ids of modules."""
    return _matching(incomplete, lambda client: (module.id for module in client.modules.list()))


def deployments(incomplete: str) -> list[str]:
    """Names of deployments."""
    return _matching(incomplete, lambda client: (deployment.name for deployment in client.deployments.list()))


def webhooks(incomplete: str) -> list[str]:
    """Ids of webhooks."""
    return _matching(incomplete, lambda client: (webhook.id for webhook in client.webhooks.list()))


def _matching(incomplete: str, names: "Callable[[Client], Iterator[str]]") -> list[str]:
    from app.cli import credentials
    from pnc_client import Client, ClientError

    try:
        url = os.environ.get("PNC_URL", DEFAULT_URL)
        with Client(url, key=credentials.find(url), timeout=SECONDS, attempts=1) as client:
            return [name for name in islice(names(client), MOST) if name.startswith(incomplete)]
    except (ClientError, OSError):
        return []
