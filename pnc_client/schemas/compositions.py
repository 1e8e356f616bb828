"""JSON types of compositions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.modules import Comparison
from pnc_client.schemas.shapes import RequestBody, ResponseBody, known

CompositionState = Literal["queued", "running", "cancelling", "ready", "failed", "cancelled"]
CommonHead = Literal["affine", "joint", "ridge"]


class CompositionCreate(RequestBody):
    """A set of modules whose common numbers a worker fits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "target": "digits-low@1",
                    "modules": ["mod_019aa3b0c1d27f0e9d5c6b7a8f901234", "mod_019aa3b0c1d27f0e9d5c6b7a8f901235"],
                    "dataset": "ds_019aa3b0c1d27f0e9d5c6b7a8f901234",
                }
            ]
        }
    )

    target: str
    """Version: `name`, `name@3` or `name@alias`."""
    modules: list[str] = Field(min_length=1, max_length=64)
    """Ids of the modules, in any order."""
    dataset: str
    """Id of a dataset with labelled images of the classes of the target and of every module."""
    head: CommonHead = "affine"
    """`affine`: scale and offset of each module. `joint` and `ridge`: also a linear correction of all logits."""
    keep_anyway: bool = False
    """Keep the composition although the modules without it are surely more accurate on the images."""


class Composition(ResponseBody):
    """Numbers that a set of modules needs together on one target."""

    id: str
    """Typed id, `cmp_...`."""
    state: Annotated[str, known(CompositionState)]
    """`queued` and `running`, then `ready`, `failed` or `cancelled`; `cancelling` until the worker stops."""
    target: str
    """Version of the target."""
    modules: list[str]
    """Ids of the modules, sorted."""
    dataset: str
    """Id of the dataset."""
    head: Annotated[str, known(CommonHead)]
    """`affine`, `joint` or `ridge`."""
    keep_anyway: bool
    """Whether the composition is kept although the modules without it are surely more accurate."""
    progress: float
    """Finished share, 0 to 1."""
    message: str
    """Description of the state in one line, for people."""
    problem: dict[str, Any] | None
    """Problem document that says why it failed; null: it has not failed."""
    comparison: Comparison | None
    """The composition (`module`) beside the modules without it (`plain`) and answers without modules; null: it is not
    ready."""
    digest: str | None
    """SHA-256 of the file; null: it is not ready."""
    bytes: int | None
    """Size of the file in bytes; null: it is not ready."""
    created_at: datetime
    """Time of submission."""
    finished_at: datetime | None
    """Time of its end; null: it has not ended."""

    @classmethod
    def of(cls, row: Any) -> "Composition":
        """From a composition's row."""
        own = ("target", "modules", "dataset", "comparison")
        plain = {name: getattr(row, name) for name in cls.model_fields if name not in own}
        verdict = (row.manifest or {}).get("verdict")
        return cls.model_validate(
            {
                **plain,
                "target": row.target_ref,
                "modules": [member.module_id for member in row.members],
                "dataset": row.dataset_id,
                "comparison": verdict,
            }
        )
