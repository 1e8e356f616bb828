"""All tables of the zoo. Import this module before the first query: SQLAlchemy must know both tables of a relation."""

from app.access import tables as access
from app.compositions.tables import CompositionRow
from app.datasets.tables import DatasetRow
from app.db.tables import Base, IdempotencyRow
from app.deployments import tables as deployments
from app.imports import tables as imports
from app.jobs.tables import StepRow
from app.models.tables import VersionRow
from app.modules.tables import BundleRow
from app.store.tables import UploadRow
from app.webhooks import tables as webhooks

OWNERS = (BundleRow, CompositionRow, DatasetRow, StepRow, UploadRow, VersionRow)
"""Tables whose rows refer to objects of the store."""
__all__ = ["OWNERS", "Base", "IdempotencyRow", "access", "deployments", "imports", "webhooks"]
