"""Shell completion of names and ids; no suggestions if the service does not answer within a second."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from app.cli.screen import DEFAULT_URL

if TYPE_CHECKING:
    from pnc_client import Client

Completion = Callable[[str], list[str]]
SECONDS = 1.0
MOST = 200
"""The list of names is searched up to this length."""


def _completion(names: "Callable[[Client], Iterator[str]]") -> Completion:
    def complete(incomplete: str) -> list[str]:
        from app.cli import credentials
        from pnc_client import Client, ClientError

        try:
            url = os.environ.get("PNC_URL", DEFAULT_URL)
            with Client(url, key=credentials.find(url), timeout=SECONDS, attempts=1) as client:
                return [name for name in islice(names(client), MOST) if name.startswith(incomplete)]
        except (ClientError, OSError):
            return []

    return complete


models = _completion(lambda client: (model.name for model in client.models.list()))
datasets = _completion(lambda client: (dataset.id for dataset in client.datasets.list()))
jobs = _completion(lambda client: (job.id for job in client.jobs.list()))
modules = _completion(lambda client: (module.id for module in client.modules.list()))
deployments = _completion(lambda client: (deployment.name for deployment in client.deployments.list()))
webhooks = _completion(lambda client: (webhook.id for webhook in client.webhooks.list()))
