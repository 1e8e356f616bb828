"""All tables of the zoo: import this module before the first query, so that every relationship finds its other side."""

from app.access import tables as access
from app.datasets.tables import DatasetRow
from app.db.tables import Base, IdempotencyRow
from app.deployments import tables as deployments
from app.jobs.tables import StepRow
from app.models.tables import VersionRow
from app.modules.tables import BundleRow
from app.store.tables import UploadRow
from app.webhooks import tables as webhooks

OWNERS = (BundleRow, DatasetRow, StepRow, UploadRow, VersionRow)
"""Tables whose rows name objects."""
__all__ = ["OWNERS", "Base", "IdempotencyRow", "access", "deployments", "webhooks"]
