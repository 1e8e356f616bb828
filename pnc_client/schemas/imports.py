"""JSON types of imports."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.models import MAX_DESCRIPTION
from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody, known
from pnc_core.config import NetworkSpec

DEFAULT_HOSTS = ("download.pytorch.org", "huggingface.co", "*.huggingface.co", "*.hf.co")
"""Hosts of torchvision's weights and of the Hugging Face Hub with its content network; `*.`: any subdomain."""
ImportState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]


class ImportCreate(RequestBody):
    """A network to import."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"source": "torchvision/resnet18@IMAGENET1K_V1", "name": "resnet18"}]}
    )

    source: str = Field(min_length=1, max_length=2000)
    """`torchvision/NAME[@WEIGHTS]`, `timm/NAME[.TAG]`, `hf://OWNER/NAME[@REVISION]`, `mlflow://models/NAME/VERSION` or
    the URL of a file of weights on an allowed host, without user, password and query."""
    name: str = Field("", pattern=rf"^$|{NAME_PATTERN}")
    """Name of the model; a new name registers a model. Empty: the last part of the source."""
    spec: NetworkSpec | None = None
    """Network of a bare file of weights (a URL, or MLflow); other sources have their own."""
    licence: str = Field("", max_length=200)
    """Licence of the weights; empty: as the source states it."""
    description: str = Field("", max_length=MAX_DESCRIPTION)
    """Description of a new model."""


class Import(ResponseBody):
    """A network that a worker fetches from its source and adds as a version."""

    id: str
    """Typed id, `imp_...`."""
    state: Annotated[str, known(ImportState)]
    """`queued` and `running`, then `succeeded`, `failed` or `cancelled`; `cancelling` until the worker stops."""
    source: str
    """Source as it was submitted."""
    model: str
    """Name of the model."""
    version: str | None
    """Reference of the added version, `model@3`; null: none yet."""
    progress: float
    """Finished share, 0 to 1."""
    message: str
    """Description of the state in one line, for people."""
    problem: dict[str, Any] | None
    """Problem document that says why the import failed; null: it has not failed."""
    created_at: datetime
    """Time of submission."""
    finished_at: datetime | None
    """Time of its end; null: it has not ended."""

    @classmethod
    def of(cls, row: Any) -> "Import":
        """From an import's row."""
        plain = {name: getattr(row, name) for name in cls.model_fields if name != "version"}
        return cls.model_validate({**plain, "version": row.version_ref if row.version_id else None})
