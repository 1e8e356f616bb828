"""Modules and their bundles."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pnc_client.schemas.shapes import ResponseBody, known

Payload = Literal["thin", "full"]


class Bundle(ResponseBody):
    """One file of a module."""

    payload: Annotated[str, known(Payload)]
    """`full` holds the slices of the source; `thin` names them by the source's fingerprint."""
    digest: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file."""


class Module(ResponseBody):
    """What a job cloned."""

    id: str
    """Typed id, `mod_...`."""
    job: str
    """Id of the job."""
    target: str
    """Version it was cloned for."""
    source: str
    """Version it was cloned from."""
    target_fingerprint: str
    """Fingerprint of the only network it fits."""
    classes: list[str]
    """Classes it adds."""
    bundles: list[Bundle]
    """Its files."""
    created_at: datetime
    """When it was published."""
    archived_at: datetime | None
    """When it was archived, if it is."""

    @classmethod
    def of(cls, row: Any) -> "Module":
        """From a module's row."""
        own = {"job": row.job_id, "target": row.target_ref, "source": row.source_ref}
        return cls.model_validate({**{n: getattr(row, n) for n in cls.model_fields if n not in own}, **own})


class Manifest(ResponseBody):
    """What a bundle says about itself, as `docs/bundle.md` describes it."""

    module: str
    """Id of the module."""
    manifest: dict[str, Any]
    """The manifest, word for word."""
    evidence: dict[str, Any] | None
    """On images that the job held out: `worth` with the accuracies of the target `alone` and of the direct `ensemble`
    of both networks on `old` classes, `new` ones and on `average`; `confusion` with `classes`, `before` and `after`
    (counts, true classes by what they were taken for), `similarity` with `rows`, `columns`, `module` and `source`
    (mean cosines)."""
