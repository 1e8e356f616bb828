"""JSON types of checks of versions on labelled images."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pnc_client.schemas.shapes import RequestBody, ResponseBody, known

Outcome = Literal["fine", "suspect", "near_chance", "failed"]
"""`suspect`: another description of the network is significantly better; `near_chance`: the network guesses."""


class CheckRequest(RequestBody):
    """A check to run."""

    dataset: str
    """Id of a dataset with labelled images of the version's classes."""


class Cause(ResponseBody):
    """A likely mistake in a version's registration."""

    title: str
    """The change that helps, e.g. `shortcut=pad-both`."""
    changes: dict[str, Any]
    """Fields of the spec with their better values."""
    options: str
    """The same as options of `pnc models push`."""
    before: float
    """Accuracy as registered, 0 to 1, on `images` images that did not choose the change."""
    after: float
    """Accuracy with the change on these images, 0 to 1."""
    low: float
    """Lower end of the 95 % interval of `after`."""
    high: float
    """Upper end of the 95 % interval of `after`."""
    images: int
    """Number of these images."""


class VersionCheck(ResponseBody):
    """Result of a check."""

    outcome: Annotated[str, known(Outcome)]
    """`fine`, `suspect`, `near_chance`, or `failed` if nothing could be measured."""
    detail: str
    """The result in one line, with the advice."""
    dataset: str | None
    """Id of the dataset; null: images on the client's machine."""
    accuracy: float | None = None
    """Accuracy, 0 to 1; null: the check failed."""
    low: float | None = None
    """Lower end of the 95 % interval of the accuracy."""
    high: float | None = None
    """Upper end of the 95 % interval of the accuracy."""
    images: int = 0
    """Number of images."""
    chance: float | None = None
    """Accuracy of guessing: 1 / number of classes."""
    cause: Cause | None = None
    """A likely mistake in the registration; null: none was found."""
    checked_at: datetime | None = None
    """Time of the check."""
