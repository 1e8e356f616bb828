"""The task that every compared method solves, its output, and the record of its result.

The rules that all methods share are here too: the budget of images, the weights of
old and new classes, and the fitting of heads on frozen networks.
"""

import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.comparison.data import Split
from benchmarks.comparison.training import Recipe
from benchmarks.comparison.zoo import Network, zoo_recipe
from pnc_core.analysis.evaluation import judge, multiply_accumulates, predict
from pnc_core.config import NetworkSpec
from pnc_core.images import EVALUATION_BATCH, ImageSet, augment, batches
from pnc_core.method.heads.choose import HeadChoice, choose_head
from pnc_core.method.heads.fit import HeadInputs, head_logits
from pnc_core.method.heads.inputs import views_of
from pnc_core.module.head import Head

VIEWS, HELD = 8, 0.25
"""For fitting heads: the most augmented views of an image (cloning uses no more), and the share of images held out."""


@dataclass(frozen=True)
class Task:
    """Two frozen networks, the images that a method may learn from, and the test images."""

    split: Split
    target: Network
    source: Network
    fraction: float
    """Share of the training images of old and cloned classes that may be used."""
    seed: int = 0
    """Seed of the method's own random choices. The split's seed draws classes and images."""
    device: str = "cpu"
    precision: str = "bfloat16"
    balance_sides: bool = True
    """True: the old classes together weigh as much as the new classes together. False: every class weighs the same."""
    tuned: tuple[float, float, float] | None = None
    """Learning rate, weight decay and weight of the distillation for LwF and fine-tuning; None: those of the suite."""
    step: Callable[[int], None] = lambda images: None
    """Called with the number of images after every batch of training."""
    report: Callable[[str], None] = lambda message: None
    """Called with progress messages by the methods that have any."""

    @functools.cached_property
    def images(self) -> ImageSet:
        """Images that a method may learn from. Labels number the old classes first, then the cloned ones."""
        return self.split.sample(self.fraction)

    @functools.cached_property
    def test_images(self) -> ImageSet:
        """Test images of old and cloned classes. Labels number the old classes first, then the cloned ones."""
        return self.split.judged

    @functools.cached_property
    def target_logits(self) -> Tensor:
        """Logits of the target alone for the test images: float32 (N, old)."""
        return predict(*self.target, self.test_images.images)

    @property
    def new_images(self) -> ImageSet:
        """The images of the cloned classes, labelled as in `images`."""
        return self.images.take(torch.nonzero(self.images.labels >= self.old_count).flatten())

    @property
    def old_count(self) -> int:
        """Number of the target's classes."""
        return len(self.split.target)

    @property
    def new_count(self) -> int:
        """Number of the cloned classes."""
        return len(self.split.cloned)

    @property
    def cloned_indices(self) -> list[int]:
        """Indices of the cloned classes among the source's logits."""
        return [self.source[1].classes.index(name) for name in self.split.cloned]

    @property
    def spec(self) -> NetworkSpec:
        """The target's spec, with old and cloned classes in the order of the logits."""
        return replace(self.target[1], classes=(*self.split.target, *self.split.cloned))

    @property
    def class_weights(self) -> Tensor:
        """Weight of each class in the loss, as `balance_sides` asks: (old + new,). Cloning's heads weigh both sides
        equally."""
        if not self.balance_sides:
            return torch.ones(self.old_count + self.new_count, device=self.device)
        share = float((self.images.labels >= self.old_count).double().mean())
        weights = [0.5 / (1 - share)] * self.old_count + [0.5 / share] * self.new_count
        return torch.tensor(weights, device=self.device)

    @property
    def both_macs(self) -> int:
        """Multiply-accumulates of one image through both whole networks."""
        return multiply_accumulates(*self.target) + multiply_accumulates(*self.source)

    def recipe(self, images: ImageSet, rate: float, weight_decay: float) -> Recipe:
        """A training recipe within the budget: every baseline of a suite sees the same number of images over all
        epochs."""
        suite = self.split.suite
        recipe = Recipe(self.epochs(images), rate, augment=suite.augment, device=self.device, precision=self.precision)
        return replace(recipe, weight_decay=weight_decay)

    def epochs(self, images: ImageSet, share: float = 1.0) -> int:
        """Number of epochs that spends a share of the suite's budget of images; at least 5, at most 60."""
        return min(60, max(5, round(share * self.split.suite.images / len(images))))

    def recipe_anew(self, images: ImageSet) -> Recipe:
        """A recipe for a network trained from scratch: it sees as many images as the target saw in its training."""
        recipe = zoo_recipe(self.split, self.device, self.precision)
        seen = recipe.epochs * len(self.split.train.only(self.split.target))
        return replace(recipe, epochs=max(recipe.epochs, min(60, round(seen / len(images)))))

    def view(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Augment uint8 images as the suite does."""
        return augment(pixels, self.split.suite.augment, generator)  # type: ignore[arg-type]

    def generator(self, *purpose: object) -> torch.Generator:
        """A random generator for one purpose; its numbers do not depend on earlier draws for other purposes."""
        text = "|".join(map(str, (self.split.suite.name, self.split.seed, self.seed, *purpose)))
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        return torch.Generator().manual_seed(seed % 2**63)


@dataclass(frozen=True)
class MethodOutput:
    """A method's logits for the test images, and their cost."""

    logits: Callable[[], Tensor]
    """Computes the logits of `Task.test_images`: float32 (N, old + new)."""
    numbers: int
    """Count of the parameters and buffers that are stored in addition to the target's."""
    macs: int
    """Multiply-accumulates of one image, those of the target included."""
    images_used: int


def output_of(network: nn.Module, task: Task, images_used: int) -> MethodOutput:
    """The output of one network for all classes; the whole network counts as stored."""
    macs = multiply_accumulates(network, task.spec)
    return MethodOutput(
        lambda: predict(network, task.spec, task.test_images.images), numbers(network), macs, images_used
    )


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
    """Stored parameters and buffers, divided by the source's."""
    macs_ratio: float
    """Multiply-accumulates of one image, divided by the target's."""
    seconds: float
    """Time of learning, without predicting test images. On a CPU this is processor time, which other processes
    hardly change."""
    images_used: int


def run_method(task: Task, name: str, method: Callable[[Task], MethodOutput]) -> Record:
    """Run one method on a task and measure its accuracy, locality and costs."""
    target_logits, labels = task.target_logits, task.test_images.labels
    clock = time.process_time if task.device == "cpu" else time.perf_counter
    started = clock()
    output = method(task)
    seconds = clock() - started
    found = judge(output.logits(), target_logits, labels)
    return Record(
        suite=task.split.suite.name,
        seed=task.seed,
        split=task.split.seed,
        method=name,
        fraction=task.fraction,
        old=found.old,
        new=found.new,
        avg=found.average,
        locality=found.locality,
        size_ratio=output.numbers / numbers(task.source[0]),
        macs_ratio=output.macs / multiply_accumulates(*task.target),
        seconds=seconds,
        images_used=output.images_used,
    )


def numbers(*modules: nn.Module) -> int:
    """Count of the parameters and buffers of modules that share none."""
    return sum(tensor.numel() for module in modules for tensor in module.state_dict().values())


Read = Callable[[Tensor], tuple[Tensor, Tensor, list[Tensor]]]
"""uint8 images -> old logits, new logits, and one or more alternative feature matrices."""


def fitted_head(task: Task, kind: str, read: Read, views: int = VIEWS) -> tuple[Head, Callable[[], Tensor]]:
    """Fit a head on frozen features.

    Held-out images choose the features and the strength of regularisation; then the head is fitted on all images.

    Returns:
        The head, and a function that computes its logits for the test images.
    """
    views = views_of(len(task.images), views)  # cloning's heads have the same limit
    parts = task.images.split(HELD, task.generator("held"))
    train, held = (_rows(task, part, read, views) for part in parts)
    forms = enumerate(zip(train, held, strict=True))
    fitted = choose_head([HeadChoice(kind, form, *inputs) for form, inputs in forms])
    return fitted.head, lambda: head_logits(fitted.head, _rows(task, task.test_images, read, 0)[fitted.grid])


def _rows(task: Task, images: ImageSet, read: Read, views: int) -> list[HeadInputs]:
    """Inputs of heads for the images and their augmented views: one entry for each alternative feature matrix."""
    fast = task.precision == "bfloat16" and views > 0  # test images have no views and are read in float32
    rows = []
    for view in range(views + 1):
        generator = task.generator("view", view)
        for index in batches(len(images), EVALUATION_BATCH):
            pixels = images.images[index]
            with torch.no_grad(), torch.autocast(task.device, torch.bfloat16, enabled=fast):
                old, own, features = read(task.view(pixels, generator) if view else pixels)
            rows.append((images.labels[index], old.float(), own.float(), *(f.float() for f in features)))
    labels, old, own, *forms = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    return [HeadInputs(old, own, features, labels) for features in forms]
