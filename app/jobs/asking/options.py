"""Options of the form. Each has a label, and a sentence that names its effect and the reason of its default."""

from dataclasses import dataclass
from typing import get_args

from pnc_core.config import Localizer


@dataclass(frozen=True)
class Choice:
    """An option with a few values."""

    name: str
    label: str
    values: dict[str, str]
    help: str


@dataclass(frozen=True)
class Number:
    """An option that is a number."""

    name: str
    label: str
    low: float
    high: float
    step: float
    help: str
    optional: bool = False
    """Whether it may be left empty."""


@dataclass(frozen=True)
class Flag:
    """An option that is on or off."""

    name: str
    label: str
    help: str


CHOICES = (
    Choice(
        "preset", "Preset", {"joint": "Joint", "fast": "Fast"},
        "Joint learns the module and takes minutes, which is more accurate; fast solves closed forms in seconds.",
    ),
    Choice(
        "locality", "Locality", {"soft": "Soft", "strict": "Strict"},
        "Soft lets old predictions change a little for the best accuracy; strict leaves them exactly as they were.",
    ),
    Choice(
        "head", "Head", {"auto": "Automatic", "affine": "Affine", "router": "Router", "joint": "Joint"},
        "How old and new answers meet; automatic takes the one with the lowest loss on held-out images.",
    ),
    Choice(
        "localizer", "Localizer", {name: name for name in get_args(Localizer)},
        "How channels are scored before some are kept; log-odds measures what matters to the cloned classes.",
    ),
)  # fmt: skip
NUMBERS = (
    Number(
        "keep", "Kept share of the cloned layers' parameters", 0.05, 1, 0.05,
        "Less makes a smaller module; half keeps the accuracy in most of our benchmarks.",
    ),
    Number(
        "max_size", "Largest module size", 0.05, 2, 0.05,
        "As a share of the source. Empty: 0.6, or more where the images show that it is needed.", optional=True,
    ),
    Number(
        "epochs", "Epochs of feature matching", 1, 1000, 1,
        "More takes longer; from twelve on the accuracy hardly grows. The preset fast uses none.",
    ),
    Number(
        "shortlist", "Number of positions to train", 1, 64, 1,
        "Positions that are compared by training; the fast screen before it makes more than four seldom worthwhile.",
    ),
    Number(
        "batch_size", "Batch size", 2, 65536, 1,
        "Images in one training step; 128 fits into the memory of small machines.",
    ),
    Number(
        "seed", "Seed", 0, 2**32 - 1, 1,
        "Equal seeds and inputs give equal modules; any number is as good.",
    ),
)  # fmt: skip
FLAGS = (
    Flag(
        "old_images", "The dataset has images of the target's own classes",
        "On, because such images show which old answers must not change.",
    ),
    Flag(
        "labels", "Use the dataset's labels",
        "On, because labels are more reliable than the predictions of the two networks.",
    ),
    Flag(
        "keep_anyway", "Publish the module although an answer without a module is better",
        "Off, because a module that loses against the target alone is seldom wanted.",
    ),
)  # fmt: skip
