"""What every method of the comparison is given, what it answers, and how that is recorded.

The rules that are the same for all are here too: the budget of images, the balance of
old and new classes, and how heads on frozen networks are fitted.
"""

import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.data import Split
from benchmarks.training import Recipe
from benchmarks.zoo import Network, zoo_recipe
from pnc_core.analysis.evaluation import judge, multiply_accumulates, predict
from pnc_core.config import NetworkSpec
from pnc_core.images import EVALUATION_BATCH, ImageSet, augment, batches
from pnc_core.method.heads.choose import HeadChoice, choose_head
from pnc_core.method.heads.fit import HeadInputs, head_logits
from pnc_core.method.insert import views_of
from pnc_core.module.head import Head

VIEWS, HELD = 8, 0.25
"""How heads are fitted: views of every image at most (no fewer than cloning's own have), share held out."""


@dataclass(frozen=True)
class Arena:
    """Two frozen networks, the images that may be learnt from, and test images."""

    split: Split
    target: Network
    source: Network
    fraction: float
    """Share of the training images of old and cloned classes that may be used."""
    seed: int = 0
    """Of the method's own random choices; classes and images are drawn by the split's."""
    device: str = "cpu"
    precision: str = "bfloat16"
    sides: bool = True
    """Old and new classes weigh half each, whatever their number; False: every class weighs the same."""
    step: Callable[[int], None] = lambda images: None
    """Called with the number of images after every batch of training."""
    said: Callable[[str], None] = lambda message: None
    """Called with what a method is doing, for methods that say so."""

    @functools.cached_property
    def images(self) -> ImageSet:
        """What may be learnt from; labels count the old classes first."""
        return self.split.sample(self.fraction)

    @functools.cached_property
    def test(self) -> ImageSet:
        """What is judged; labels count the old classes first."""
        return self.split.judged

    @functools.cached_property
    def alone(self) -> Tensor:
        """The target's own logits of the test images."""
        return predict(*self.target, self.test.images)

    @property
    def new_images(self) -> ImageSet:
        """The images of the cloned classes, labelled as in `images`."""
        return self.images.take(torch.nonzero(self.images.labels >= self.old).flatten())

    @property
    def old(self) -> int:
        """How many classes the target has."""
        return len(self.split.target)

    @property
    def new(self) -> int:
        """How many classes it is to learn."""
        return len(self.split.cloned)

    @property
    def cloned(self) -> list[int]:
        """Indices of the cloned classes among the source's logits."""
        return [self.source[1].classes.index(name) for name in self.split.cloned]

    @property
    def spec(self) -> NetworkSpec:
        """The target's, with all classes in the order of the logits."""
        return replace(self.target[1], classes=(*self.split.target, *self.split.cloned))

    @property
    def balance(self) -> Tensor:
        """Weights of the classes with which old and new ones weigh half each, as they do in cloning's heads."""
        if not self.sides:
            return torch.ones(self.old + self.new, device=self.device)
        share = float((self.images.labels >= self.old).double().mean())
        weights = [0.5 / (1 - share)] * self.old + [0.5 / share] * self.new
        return torch.tensor(weights, device=self.device)

    @property
    def both_macs(self) -> int:
        """Multiply-accumulates of both whole networks."""
        return multiply_accumulates(*self.target) + multiply_accumulates(*self.source)

    def recipe(self, images: ImageSet, rate: float, weight_decay: float) -> Recipe:
        """The budget: as many images in all epochs for every rival of a suite."""
        suite = self.split.suite
        recipe = Recipe(self.epochs(images), rate, augment=suite.augment, device=self.device, precision=self.precision)
        return replace(recipe, weight_decay=weight_decay)

    def epochs(self, images: ImageSet, share: float = 1.0) -> int:
        """In how many epochs that share of the suite's budget of images is seen; 5 to 60 for whoever learns."""
        return min(60, max(5, round(share * self.split.suite.images / len(images))))

    def recipe_anew(self, images: ImageSet) -> Recipe:
        """The budget of a new network, which needs more than one that goes on: the images that the target has seen."""
        recipe = zoo_recipe(self.split, self.device, self.precision)
        seen = recipe.epochs * len(self.split.train.only(self.split.target))
        return replace(recipe, epochs=max(recipe.epochs, min(60, round(seen / len(images)))))

    def view(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """The suite's augmentation of uint8 images."""
        return augment(pixels, self.split.suite.augment, generator)  # type: ignore[arg-type]

    def generator(self, *purpose: object) -> torch.Generator:
        """Randomness for one purpose: independent of what else was drawn before."""
        text = "|".join(map(str, (self.split.suite.name, self.split.seed, self.seed, *purpose)))
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        return torch.Generator().manual_seed(seed % 2**63)


@dataclass(frozen=True)
class Answer:
    """What a method says of the test images, and what that costs."""

    logits: Callable[[], Tensor]
    """Answers for `Arena.test`: float32 (N, old + new)."""
    numbers: int
    """Parameters and buffers to be stored beside the target."""
    macs: int
    """Multiply-accumulates of one image, the target's share included."""
    images_used: int


def answer_of(network: nn.Module, arena: Arena, images_used: int) -> Answer:
    """The answer of a network for all classes, which has to be stored as a whole."""
    macs = multiply_accumulates(network, arena.spec)
    return Answer(lambda: predict(network, arena.spec, arena.test.images), numbers(network), macs, images_used)


@dataclass(frozen=True)
class Record:
    """One line of the results; accuracies and locality are shares 0..1."""

    suite: str
    seed: int
    split: int
    method: str
    fraction: float
    old: float
    new: float
    avg: float
    locality: float
    size_ratio: float
    """Stored numbers over the source's."""
    macs_ratio: float
    """Multiply-accumulates of an answer over the target's."""
    seconds: float
    """Learning, without the answers: processor time on a CPU, so that a busy machine changes little."""
    images_used: int


def compete(arena: Arena, method: str, rival: Callable[[Arena], Answer]) -> Record:
    """Let one method learn and answer, and judge it."""
    alone, labels = arena.alone, arena.test.labels
    clock = time.process_time if arena.device == "cpu" else time.perf_counter
    started = clock()
    answer = rival(arena)
    seconds = clock() - started
    found = judge(answer.logits(), alone, labels)
    return Record(
        suite=arena.split.suite.name,
        seed=arena.seed,
        split=arena.split.seed,
        method=method,
        fraction=arena.fraction,
        old=found.old,
        new=found.new,
        avg=found.average,
        locality=found.locality,
        size_ratio=answer.numbers / numbers(arena.source[0]),
        macs_ratio=answer.macs / multiply_accumulates(*arena.target),
        seconds=seconds,
        images_used=answer.images_used,
    )


def numbers(*modules: nn.Module) -> int:
    """Parameters and buffers of modules that share none."""
    return sum(tensor.numel() for module in modules for tensor in module.state_dict().values())


Read = Callable[[Tensor], tuple[Tensor, Tensor, list[Tensor]]]
"""uint8 images -> old logits, new logits, features in one or several forms."""


def fitted_head(arena: Arena, kind: str, read: Read, views: int = VIEWS) -> tuple[Head, Callable[[], Tensor]]:
    """The head whose form and strength do best on held-out images, fitted on all, and what it says of test images."""
    views = views_of(len(arena.images), views)  # the bound of cloning's heads
    parts = arena.images.split(HELD, arena.generator("held"))
    train, held = (_rows(arena, part, read, views) for part in parts)
    forms = enumerate(zip(train, held, strict=True))
    fitted = choose_head([HeadChoice(kind, form, *inputs) for form, inputs in forms])
    return fitted.head, lambda: head_logits(fitted.head, _rows(arena, arena.test, read, 0)[fitted.grid])


def _rows(arena: Arena, images: ImageSet, read: Read, views: int) -> list[HeadInputs]:
    """What heads read of the images and of augmented views of them, once for every form of features."""
    fast = arena.precision == "bfloat16" and views > 0  # test images, which have no views, are read in float32
    rows = []
    for view in range(views + 1):
        generator = arena.generator("view", view)
        for index in batches(len(images), EVALUATION_BATCH):
            pixels = images.images[index]
            with torch.no_grad(), torch.autocast(arena.device, torch.bfloat16, enabled=fast):
                old, own, features = read(arena.view(pixels, generator) if view else pixels)
            rows.append((images.labels[index], old.float(), own.float(), *(f.float() for f in features)))
    labels, old, own, *forms = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return [HeadInputs(old, own, features, labels) for features in forms]
