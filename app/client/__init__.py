"""Python client of the cloning service: `from app.client import Client`.

Needs httpx and nothing of the server; only making a dataset needs pyarrow.
"""

from app.client.client import Client
from app.client.errors import ApiError, ClientError, DamagedDownload, InvalidName, ServiceUnreachable, VersionRejected
from app.client.types import (
    Alias,
    Attempt,
    Dataset,
    Deployment,
    Event,
    Job,
    Model,
    Module,
    Prediction,
    Trial,
    Upload,
    Verdict,
    Version,
)
from app.client.webhooks import Delivery, Webhook, WebhookSecret

__all__ = [
    "Alias",
    "ApiError",
    "Attempt",
    "Client",
    "ClientError",
    "DamagedDownload",
    "Dataset",
    "Delivery",
    "Deployment",
    "Event",
    "InvalidName",
    "Job",
    "Model",
    "Module",
    "Prediction",
    "ServiceUnreachable",
    "Trial",
    "Upload",
    "Verdict",
    "Version",
    "VersionRejected",
    "Webhook",
    "WebhookSecret",
]
