"""JSON types of canaries: a second set of modules on a share of a deployment's requests."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import RequestBody, ResponseBody, known

CanaryMode = Literal["canary", "shadow"]
"""canary: the modules answer the share. shadow: they run on the share after the answer, and answer nothing."""
ModuleSet = Literal["main", "canary"]
"""main: the attached modules. canary: those of the canary."""


class CanaryPut(RequestBody):
    """A second set of modules, and its share of the requests."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"modules": ["mod_019aa3b0c1d27f0e9d5c6b7a8f901234"], "share": 0.1, "mode": "canary"}]
        }
    )

    modules: list[str] = Field(max_length=64)
    """Ids of all modules of the canary, in the order of attaching; an empty list: the target alone."""
    share: float = Field(ge=0, le=1, allow_inf_nan=False)
    """Share of the requests, 0 to 1. Requests are drawn at random."""
    mode: CanaryMode = "canary"
    """`canary`: these modules answer the share of the requests. `shadow`: they only run on it, after the answer."""


class CanaryPlan(ResponseBody):
    """The canary of a revision."""

    modules: list[str]
    """Ids of the modules, in the order of attaching."""
    share: float
    """Share of the requests, 0 to 1."""
    mode: Annotated[str, known(CanaryMode)]
    """`canary`: these modules answer the share of the requests. `shadow`: they only run on it, after the answer."""

    @classmethod
    def of(cls, row: Any) -> "CanaryPlan | None":
        """From a row of a revision's canary, or None."""
        return None if row is None else cls(**planned(row))


class CanaryCounts(ResponseBody):
    """Counts of a canary, of all serving processes; at most a few seconds old."""

    main_requests: int
    """Requests that the attached modules answered."""
    canary_requests: int
    """Requests that the canary answered; 0 in the mode `shadow`."""
    agreed: int
    """Compared images for which both sets of modules predict the same class."""
    differed: int
    """Compared images for which they predict different classes."""
    mean_logit_difference: float | None
    """Mean over the compared images of the largest difference of a logit of the target's classes; null: none yet."""
    dropped: int
    """Drawn requests that were not compared, because the serving process was busy."""
    failed: int
    """Drawn requests whose comparison failed."""

    @classmethod
    def of(cls, row: Any) -> "CanaryCounts":
        """From a canary's row."""
        compared = row.agreed + row.differed
        return cls(
            main_requests=row.main_requests,
            canary_requests=row.canary_requests,
            agreed=row.agreed,
            differed=row.differed,
            mean_logit_difference=row.logit_difference / compared if compared else None,
            dropped=row.dropped,
            failed=row.failed,
        )


class Canary(CanaryPlan):
    """The canary of a deployment."""

    id: str
    """Typed id, `can_...`; other modules on either side make a new one."""
    counts: CanaryCounts
    """Counts since these two sets of modules are compared."""

    @classmethod
    def of(cls, row: Any) -> "Canary | None":
        """From a row of a revision's canary, or None."""
        return None if row is None else cls(**planned(row), id=row.canary_id, counts=CanaryCounts.of(row.canary))


def planned(row: Any) -> dict[str, Any]:
    """The fields of a `CanaryPlan`."""
    return {"modules": [m.module_id for m in row.canary.members], "share": row.share, "mode": row.mode}
