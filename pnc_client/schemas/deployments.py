"""Deployments: what is wanted and what is served."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import RequestBody, ResponseBody


class DeploymentPut(RequestBody):
    """What a deployment shall serve."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"target": "digits-low@1"}]})

    target: str
    """Version: `name`, `name@3` or `name@alias`; a bare name means its newest ready version."""


class ModulesPut(RequestBody):
    """The modules that a deployment shall have, all at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"modules": ["mod_019aa3b0c1d27f0e9d5c6b7a8f901234"]}]})

    modules: list[str] = Field(max_length=64)
    """Ids in the order of attaching; an empty list detaches all."""


class Rollback(RequestBody):
    """Where to go back to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"generation": 3}]})

    generation: int = Field(ge=1, le=2**31 - 1)
    """An earlier generation of the deployment."""


class Desired(ResponseBody):
    """What shall be served."""

    target: str
    """The version."""
    modules: list[str]
    """Ids of the attached modules, in the order of attaching."""


class Observed(ResponseBody):
    """What the serving process last reported."""

    generation: int | None
    """Generation it last worked on; none: it has not reported yet."""
    problem: dict[str, Any] | None
    """Why that generation is not served."""
    at: datetime | None
    """When it reported."""


class Replica(ResponseBody):
    """A serving process, and what it does with a deployment."""

    id: str
    """Typed id, `rep_...`; a new one at every start."""
    generation: int | None
    """Generation it last worked on; none: it has not heard of the deployment yet."""
    problem: dict[str, Any] | None
    """Why it does not serve that generation."""

    @classmethod
    def of(cls, name: str, observation: Any) -> "Replica":
        """From a replica's id and what it says, if anything."""
        if observation is None:
            return cls(id=name, generation=None, problem=None)
        return cls(id=name, generation=observation.generation, problem=observation.problem)


class Deployment(ResponseBody):
    """A target served under a name."""

    id: str
    """Typed id, `dep_...`."""
    name: str
    """Its name."""
    generation: int
    """Grows with every change; also the ETag, for If-Match."""
    desired: Desired
    """What shall be served."""
    observed: Observed
    """What is."""
    created_at: datetime
    """When it was created."""

    @classmethod
    def of(cls, row: Any, revision: Any) -> "Deployment":
        """From a deployment's row and its newest revision."""
        return cls(
            id=row.id,
            name=row.name,
            generation=row.generation,
            desired=Desired(target=revision.version.ref, modules=[a.module_id for a in revision.attachments]),
            observed=Observed(generation=row.observed_generation, problem=row.observed_problem, at=row.observed_at),
            created_at=row.created_at,
        )


class Revision(ResponseBody):
    """What a deployment served, or was to serve, at one generation."""

    generation: int
    """Its number."""
    target: str
    """The version."""
    modules: list[str]
    """Ids of the attached modules, in the order of attaching."""
    refused: bool
    """The serving process would not have it."""
    created_at: datetime
    """When it was wanted."""

    @classmethod
    def of(cls, row: Any) -> "Revision":
        """From its row."""
        return cls(
            generation=row.generation,
            target=row.version.ref,
            modules=[a.module_id for a in row.attachments],
            refused=row.refused,
            created_at=row.created_at,
        )


class ClassScore(ResponseBody):
    """One class of a prediction."""

    name: str
    """The class."""
    probability: float
    """0 to 1; all classes together make 1."""
    logit: float
    """The network's own number, exact."""


class ServedModule(ResponseBody):
    """A module that took part in a prediction."""

    id: str
    """Typed id, `mod_...`."""
    digest: str
    """SHA-256 of its full bundle."""


class Prediction(ResponseBody):
    """What a deployment sees in an image."""

    deployment: str
    """Its name."""
    generation: int
    """Revision that answered."""
    target: str
    """The version, `name@number`."""
    target_fingerprint: str
    """Of the live target's tensors, taken when this revision was put in place."""
    modules: list[ServedModule]
    """Modules that took part."""
    classes: list[ClassScore]
    """All classes, the most likely first."""
