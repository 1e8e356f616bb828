"""JSON types of modules and their bundles."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pnc_client.schemas.shapes import ResponseBody, known

Payload = Literal["thin", "full"]
Fitting = Literal["cross-fitted", "held out"]
Alternative = Literal["alone", "ensemble", "probe", "plain"]
Outcome = Literal["better", "equal", "worse"]


class Bundle(ResponseBody):
    """One bundle file of a module."""

    payload: Annotated[str, known(Payload)]
    """`full`: with the copied slices of the source; `thin`: without them, for users who have the source's weights."""
    digest: str
    """SHA-256 of the file."""
    bytes: int
    """Size of the file in bytes."""


class Figure(ResponseBody):
    """Accuracy of a module, or of an answer that needs no module, 0 to 1."""

    old: float | None
    """Accuracy on images of the target's classes; null: there are none."""
    new: float | None
    """Accuracy on images of the cloned classes; null: there are none."""
    average: float
    """Mean of both."""
    low: float
    """Lower end of the 90 % interval of `average`."""
    high: float
    """Upper end of the 90 % interval of `average`."""
    numbers: int
    """Numbers that are stored in addition to the target's."""


class Comparison(ResponseBody):
    """A module beside the answers that need no module, on the same images."""

    images: int
    """Number of images."""
    fitting: Annotated[str, known(Fitting)]
    """`cross-fitted`: each image is judged by a head that was fitted on other images. `held out`: no head was fitted on
    these images."""
    figures: dict[str, Figure]
    """By name: `module`; `alone`, the target; `ensemble`, all whole networks side by side; `probe`, a linear probe on
    the target; `plain`, only of a composition: its modules without it."""
    best: Annotated[str, known(Alternative)]
    """The most accurate answer that needs no module."""
    difference: float
    """Accuracy of the module minus that of the best other answer, -1 to 1."""
    low: float
    """Lower end of the 90 % interval of `difference`."""
    high: float
    """Upper end of the 90 % interval of `difference`."""
    outcome: Annotated[str, known(Outcome)]
    """`better` or `worse`: the interval of `difference` does not contain 0; `equal`: it does."""
    text: str
    """The verdict in words."""


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
    verdict: Comparison | None
    """The module beside the answers that need no module; null: the job had no labels or no images of the target's
    classes, or the module is older than verdicts."""
    created_at: datetime
    """Time of publication."""
    archived_at: datetime | None
    """Time of archiving; null: not archived."""

    @classmethod
    def of(cls, row: Any) -> "Module":
        """From a module's row."""
        verdict = row.manifest.get("verdict")
        own = {"job": row.job_id, "target": row.target_ref, "source": row.source_ref, "verdict": verdict}
        return cls.model_validate({**{n: getattr(row, n) for n in cls.model_fields if n not in own}, **own})


class Manifest(ResponseBody):
    """The manifest of a module's bundle, with the evidence of its job."""

    module: str
    """Id of the module."""
    manifest: dict[str, Any]
    """The unchanged manifest; `docs/bundle.md` describes its fields."""
    evidence: dict[str, Any] | None
    """Measurements on images that the judging heads have not seen. `worth`: accuracies of the target `alone`, of the
    `ensemble` of both networks and of a linear `probe` on `old` classes, `new` classes and on `average`. `confusion`:
    `classes`, and counts `before` and `after` cloning (rows: true class, columns: predicted class). `similarity`:
    `rows`, `columns`, and mean cosines of `module` and `source`."""
