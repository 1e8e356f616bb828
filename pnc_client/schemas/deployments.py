"""JSON types of deployments and predictions."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from pnc_client.schemas.canaries import Canary, CanaryPlan, ModuleSet
from pnc_client.schemas.shapes import RequestBody, ResponseBody, known

PLAIN_SCALES = (
    "the modules were calibrated one by one and have no composition: their logits may be out of balance; make one with "
    "POST /v1/compositions, then attach the modules again"
)
"""Warning of a deployment of several modules without a composition."""


class DeploymentPut(RequestBody):
    """The target that a deployment serves."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"target": "digits-low@1"}]})

    target: str
    """Version: `name`, `name@3` or `name@alias`; a bare name means its newest ready version."""


class ModulesPut(RequestBody):
    """The complete list of a deployment's modules."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"modules": ["mod_019aa3b0c1d27f0e9d5c6b7a8f901234"]}]})

    modules: list[str] = Field(max_length=64)
    """Ids in the order of attaching; an empty list detaches all."""


class Rollback(RequestBody):
    """The generation to return to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"generation": 3}]})

    generation: int = Field(ge=1, le=2**31 - 1)
    """An earlier generation of the deployment."""


class Desired(ResponseBody):
    """The desired state of a deployment."""

    target: str
    """The version."""
    modules: list[str]
    """Ids of the attached modules, in the order of attaching."""


class Observed(ResponseBody):
    """The last report of the serving process."""

    generation: int | None
    """Newest generation that the serving process has loaded or refused; null: no report yet."""
    problem: dict[str, Any] | None
    """Problem document that says why that generation is not served; null: it is served."""
    at: datetime | None
    """Time of the report."""


class Replica(ResponseBody):
    """A serving process and its state of one deployment."""

    id: str
    """Typed id, `rep_...`; each start of the process has a new id."""
    generation: int | None
    """Newest generation that the process has loaded or refused; null: it has no state of the deployment yet."""
    problem: dict[str, Any] | None
    """Problem document that says why the process does not serve that generation; null: it does."""

    @classmethod
    def of(cls, name: str, observation: Any) -> "Replica":
        """From a replica's id and its newest observation, or None."""
        if observation is None:
            return cls(id=name, generation=None, problem=None)
        return cls(id=name, generation=observation.generation, problem=observation.problem)


class Deployment(ResponseBody):
    """A target that is served under a name."""

    id: str
    """Typed id, `dep_...`."""
    name: str
    """Name of the deployment."""
    generation: int
    """Number of the newest revision; each change adds 1. It is also the ETag, for If-Match."""
    desired: Desired
    """The desired state."""
    observed: Observed
    """The state that the serving process last reported."""
    canary: Canary | None = None
    """A second set of modules on a share of the requests; null: there is none."""
    composition: str | None = None
    """Id of the composition of the attached modules; null: they have plain scales."""
    warning: str | None = None
    """Reason why the attached modules may be out of balance; null: there is none."""
    created_at: datetime
    """Time of creation."""

    @classmethod
    def of(cls, row: Any, revision: Any) -> "Deployment":
        """From a deployment's row and its newest revision."""
        return cls(
            id=row.id,
            name=row.name,
            generation=row.generation,
            desired=Desired(target=revision.version.ref, modules=[a.module_id for a in revision.attachments]),
            observed=Observed(generation=row.observed_generation, problem=row.observed_problem, at=row.observed_at),
            canary=Canary.of(revision.canary),
            composition=revision.composition_id,
            warning=PLAIN_SCALES if revision.composition_id is None and len(revision.attachments) > 1 else None,
            created_at=row.created_at,
        )


class Revision(ResponseBody):
    """The desired state of a deployment at one generation."""

    generation: int
    """The generation."""
    target: str
    """The version."""
    modules: list[str]
    """Ids of the attached modules, in the order of attaching."""
    refused: bool
    """Whether the serving process refused the revision."""
    canary: CanaryPlan | None = None
    """The canary of the revision; null: it had none."""
    composition: str | None = None
    """Id of the composition of the modules; null: they had plain scales."""
    created_at: datetime
    """Time of creation."""

    @classmethod
    def of(cls, row: Any) -> "Revision":
        """From a revision's row."""
        return cls(
            generation=row.generation,
            target=row.version.ref,
            modules=[a.module_id for a in row.attachments],
            refused=row.refused,
            canary=CanaryPlan.of(row.canary),
            composition=row.composition_id,
            created_at=row.created_at,
        )


class ClassScore(ResponseBody):
    """One class of a prediction."""

    name: str
    """Name of the class."""
    probability: float
    """Softmax probability, 0 to 1; the probabilities of all classes sum to 1."""
    logit: float
    """The network's logit, unrounded."""


class ServedModule(ResponseBody):
    """A module that took part in a prediction."""

    id: str
    """Typed id, `mod_...`."""
    digest: str
    """SHA-256 of the module's full bundle."""


class Answering(ResponseBody):
    """The parts of a deployment that made predictions."""

    deployment: str
    """Name of the deployment."""
    generation: int
    """Generation that made the prediction."""
    target: str
    """The version, `name@number`."""
    target_fingerprint: str
    """Fingerprint of the served target's tensors, computed when this generation was loaded."""
    module_set: Annotated[str, known(ModuleSet)] = "main"
    """The set of modules that answered: `main`, the attached modules, or `canary`."""
    modules: list[ServedModule]
    """Modules that took part."""


class Prediction(Answering):
    """A deployment's prediction for one image."""

    classes: list[ClassScore]
    """The most probable classes, the first one most; all classes if the request has no `top`."""


class ImagePrediction(ResponseBody):
    """The prediction for one image of a batch."""

    name: str
    """The file's name in the request."""
    classes: list[ClassScore]
    """As in `Prediction`; empty if the image has a problem."""
    problem: str | None = None
    """The reason why the image was not classified; null: it was."""


class Predictions(Answering):
    """A deployment's predictions for several images; the same modules made all of them."""

    images: list[ImagePrediction]
    """One for each file, in the order of the request."""
