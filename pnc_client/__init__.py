"""Python client of the cloning service: `from pnc_client import Client`.

It needs httpx and pydantic, but neither torch nor the server. Only `Datasets.push` of a directory needs pyarrow.
"""

from pnc_client.client import Client
from pnc_client.compositions import Composition
from pnc_client.deployments import Deployment
from pnc_client.errors import ApiError, ClientError, DamagedDownload, InvalidName, ServiceUnreachable, VersionRejected
from pnc_client.imports import Import
from pnc_client.jobs import Job
from pnc_client.models import Version
from pnc_client.modules import Module
from pnc_client.schemas.datasets import Dataset
from pnc_client.schemas.deployments import ImagePrediction, Prediction, Predictions
from pnc_client.schemas.jobs import Attempt, Event, Trial, Verdict
from pnc_client.schemas.models import Alias, ClassName, Model, Origin
from pnc_client.schemas.uploads import Upload
from pnc_client.schemas.webhooks import Delivery, Webhook, WebhookSecret

__all__ = [
    "Alias",
    "ApiError",
    "Attempt",
    "ClassName",
    "Client",
    "ClientError",
    "Composition",
    "DamagedDownload",
    "Dataset",
    "Delivery",
    "Deployment",
    "Event",
    "ImagePrediction",
    "Import",
    "InvalidName",
    "Job",
    "Model",
    "Module",
    "Origin",
    "Prediction",
    "Predictions",
    "ServiceUnreachable",
    "Trial",
    "Upload",
    "Verdict",
    "Version",
    "VersionRejected",
    "Webhook",
    "WebhookSecret",
]
