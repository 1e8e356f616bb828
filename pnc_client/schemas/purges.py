"""JSON types of purges."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pnc_client.schemas.problems import Fault
from pnc_client.schemas.shapes import ResponseBody, known

Kind = Literal["model", "version", "dataset", "module"]
Fate = Literal["stored", "kept", "gone", "left"]


class PurgedObject(ResponseBody):
    """One stored object of a purged resource."""

    digest: str
    """SHA-256 of the bytes."""
    bytes: int
    """Size of the object in the store, in bytes."""
    fate: Annotated[str, known(Fate)]
    """`stored`: a purge would delete the object; `kept`: `kept_by` has the same bytes; `gone`: deleted; `left`: a
    worker's hourly sweep or `pnc gc` will delete it."""
    kept_by: str | None
    """Id of another resource of the workspace with the same bytes; null: there is none."""


class Purge(ResponseBody):
    """A purge, or the plan of a purge."""

    kind: Annotated[str, known(Kind)]
    """`model`, `version`, `dataset` or `module`."""
    id: str
    """Id of the purged resource."""
    name: str
    """Name of the purged resource, for people."""
    rows: list[str]
    """Names of the deleted rows."""
    objects: list[PurgedObject]
    """Stored objects of the deleted rows."""
    obstacles: list[Fault]
    """Obstacles; if there is one, the purge deletes nothing."""
    purged_at: datetime | None
    """Time of the purge; null: not purged."""

    @classmethod
    def of(cls, found: Any) -> "Purge":
        """From a purge or a plan of the service."""
        return cls.model_validate(found)
