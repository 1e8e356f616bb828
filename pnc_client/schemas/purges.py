"""What a purge takes away, or would."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pnc_client.schemas.problems import Fault
from pnc_client.schemas.shapes import ResponseBody, known

Kind = Literal["model", "version", "dataset", "module"]
Fate = Literal["stored", "kept", "gone", "left"]


class PurgedObject(ResponseBody):
    """Bytes of what is purged."""

    digest: str
    """SHA-256 of the bytes."""
    bytes: int
    """How many are in the store."""
    fate: Annotated[str, known(Fate)]
    """`stored`: they would go; `kept`: `kept_by` has the same; `gone` from the store; `left` to the next sweep, which
    every worker makes each hour, or to `pnc gc`."""
    kept_by: str | None
    """Id of something else of the workspace that has the same bytes."""


class Purge(ResponseBody):
    """What a purge takes away, or would."""

    kind: Annotated[str, known(Kind)]
    """`model`, `version`, `dataset` or `module`."""
    id: str
    """Its id."""
    name: str
    """What people call it."""
    rows: list[str]
    """Names of all that goes."""
    objects: list[PurgedObject]
    """Bytes that go."""
    obstacles: list[Fault]
    """What stands in the way; with any, nothing goes."""
    purged_at: datetime | None
    """When it went; null: it is there still."""

    @classmethod
    def of(cls, found: Any) -> "Purge":
        """From a purge of the zoo."""
        return cls.model_validate(found)
