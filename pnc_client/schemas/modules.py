"""JSON types of modules and their bundles."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pnc_client.schemas.shapes import ResponseBody, known

Payload = Literal["thin", "full"]


class Bundle(ResponseBody):
    """One bundle file of a module."""

    payload: Annotated[str, known(Payload)]
    """`full`: with the copied slices of the source; `thin`: without them, for users who have the source's weights."""
    digest: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file in bytes."""


class Module(ResponseBody):
    """The result of a cloning job."""

    id: str
    """Typed id, `mod_...`."""
    job: str
    """Id of the cloning job."""
    target: str
    """Version that the module was cloned for."""
    source: str
    """Version that the module was cloned from."""
    target_fingerprint: str
    """Fingerprint of the only network that the module fits."""
    classes: list[str]
    """Cloned classes."""
    bundles: list[Bundle]
    """Bundle files of the module."""
    created_at: datetime
    """Time of publication."""
    archived_at: datetime | None
    """Time of archiving; null: not archived."""

    @classmethod
    def of(cls, row: Any) -> "Module":
        """From a module's row."""
        own = {"job": row.job_id, "target": row.target_ref, "source": row.source_ref}
        return cls.model_validate({**{n: getattr(row, n) for n in cls.model_fields if n not in own}, **own})


class Manifest(ResponseBody):
    """The manifest of a module's bundle, with the evidence of its job."""

    module: str
    """Id of the module."""
    manifest: dict[str, Any]
    """The unchanged manifest; `docs/bundle.md` describes its fields."""
    evidence: dict[str, Any] | None
    """Measurements on images that the job held out. `worth`: accuracies of the target `alone` and of the direct
    `ensemble` of both networks on `old` classes, `new` classes and on `average`. `confusion`: `classes`, and counts
    `before` and `after` cloning (rows: true class, columns: predicted class). `similarity`: `rows`, `columns`, and mean
    cosines of `module` and `source`."""
