"""Clone ImageNet classes from a public EfficientNet-Lite0 into a small MobileNetV3, with few images.

    python -m benchmarks.imagenet --weights efficientnet-lite0.pth --images tiny-imagenet.parquet \
        --test-images tiny-imagenet-test.parquet --seeds 0,1,2 --out results

The target learns ten classes of Tiny-ImageNet at 64 x 64. The source knows ImageNet's 1,000 classes at 224 x 224. Five
of them are cloned. All methods learn from the same 20 images of each of the 15 classes.
Each result is written to `results.json` at once, so that an interrupted run continues with `--resume`.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from app.sources.from_timm import spec_of
from benchmarks.comparison.baselines import BASELINES
from benchmarks.comparison.data import DEVELOPMENT_SEED, Split, Suite, read_tiny
from benchmarks.comparison.task import MethodOutput, Record, Task, run_method
from benchmarks.comparison.zoo import Network, load_published, train_or_load, zoo_recipe
from benchmarks.reports.rows import read_rows_to_resume, write_rows
from benchmarks.reports.tables import write_report
from pnc_core.analysis.evaluation import multiply_accumulates, predict
from pnc_core.class_names import ClassNames
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.module.composed import attach
from pnc_core.vision import timm_package

SOURCE, TARGET = "tf_efficientnet_lite0", "torchvision/mobilenet_v3_small"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SUITE = Suite("tiny-imagenet", TARGET, 0, (3, 64, 64), MEAN, STD, 10, 5, 5, 40, 120_000, "shift-flip")
CUT: dict[str, Any] = {"max_size": 0.6}
PRESETS: dict[str, dict[str, Any]] = {
    "pnc_fast": {"preset": "fast"}, "pnc_fast_cut": {"preset": "fast", **CUT}, "pnc_joint_cut": CUT,
}  # fmt: skip
"""Our method: default settings, with which a module may be the whole source, and modules of at most 0.6 of the source.
Nothing is tuned for this task."""
NAMES = (
    "target_only", "ensemble_raw", "ensemble_softmax", "ensemble_affine", "ensemble_joint",
    "linear_probe", "finetune", "lwf",
)  # fmt: skip


@dataclass(frozen=True)
class FewImages(Split):
    """A split in which methods learn from the same number of images of every class."""

    per_class: int

    def spec(self, classes: tuple[str, ...], architecture: str | None = None) -> NetworkSpec:
        """The target's spec."""
        return NetworkSpec(
            architecture=architecture or TARGET, classes=classes, input_size=SUITE.input_size, mean=MEAN, std=STD
        )

    def sample(self, fraction: float) -> ImageSet:
        """`per_class` images of every old and cloned class; the fraction is ignored."""
        images = self.train.only((*self.target, *self.cloned))
        return images.sample(self.per_class * len(images.classes), torch.Generator().manual_seed(self.seed))


def main(
    weights: Annotated[Path, typer.Option(help="EfficientNet-Lite0's weights, as published or as timm names them.")],
    images: Annotated[Path, typer.Option(help="Parquet file of training images with class names of ImageNet.")],
    test_images: Annotated[Path, typer.Option(help="Parquet file of test images.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json, report.md, plots and the trained targets.")],
    seeds: Annotated[str, typer.Option(help="Seeds, a list; each draws other classes and images.")] = "0,1,2",
    per_class: Annotated[int, typer.Option(help="Images of every class that methods learn from.")] = 20,
    methods: Annotated[str, typer.Option(help="Methods to measure.")] = ",".join((*PRESETS, *NAMES)),
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 1,
    resume: Annotated[bool, typer.Option(help="Keep the records in results.json, measure the rest.")] = False,
) -> None:
    """Measure methods and write a report."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    console, file = Console(), out / "results.json"
    records = [Record(**row) for row in read_rows_to_resume(file, resume)]
    done = {(record.split, record.method) for record in records}
    for seed in map(int, seeds.split(",")):
        todo = [name for name in methods.split(",") if (seed, name) not in done]
        if not todo:
            continue
        source = efficientnet(weights)
        split = load(images, test_images, source[1], seed, per_class)
        target = train_or_load(split, split.target, out / "nets", zoo_recipe(split, "cpu", "float32"))
        task = Task(split, target, source, fraction=per_class / 500, precision="float32")
        for name in todo:
            record = run_method(task, name, BASELINES.get(name) or partial(cloned, preset=name))
            records.append(record)
            write_rows(file, records)
            console.print(
                f"{seed} {name:<18} average {record.avg:.4f}  old {record.old:.4f}  new {record.new:.4f}  "
                f"size {record.size_ratio:.2f}  {record.seconds:.0f} s"
            )
    console.print(f"report: {write_report(records, out)}")


def load(images: Path, test_images: Path, source: NetworkSpec, seed: int, per_class: int) -> FewImages:
    """Draw ten classes of the target and five to clone. From `DEVELOPMENT_SEED` on, a fifth of the training images
    replaces the test images.
    """
    train = read(images, source)
    if seed >= DEVELOPMENT_SEED:
        train, test = train.split(0.2, torch.Generator().manual_seed(seed))
    else:
        test = read(test_images, source)
    order = torch.randperm(len(train.classes), generator=torch.Generator().manual_seed(seed)).tolist()
    names = [train.classes[i] for i in order]
    target, cloned_classes = tuple(names[:10]), tuple(names[10:15])
    return FewImages(SUITE, seed, target, cloned_classes, cloned_classes, train, test, per_class)


def read(file: Path, source: NetworkSpec) -> ImageSet:
    """The images of a Parquet file as the target sees them, with the source's names of their classes."""
    images, known = read_tiny(file), ClassNames(source.classes, source.class_aliases)
    return replace(images, classes=tuple(known.find(name) for name in images.classes))


def efficientnet(weights: Path) -> Network:
    """EfficientNet-Lite0 with published weights; its classes are ImageNet's WordNet ids."""
    timm: Any = timm_package()
    if timm is None:
        raise SystemExit("timm: expected it to be installed, got nothing; pip install 'pnc-zoo[timm]'")
    spec = spec_of(f"timm/{SOURCE}", timm.get_pretrained_cfg(SOURCE).to_dict())
    return load_published(weights, spec)


def cloned(task: Task, *, preset: str) -> MethodOutput:
    """Clone a module with a preset's defaults, and attach it."""
    config = CloneConfig(
        classes=task.split.cloned,
        augment="shift-flip",
        seed=task.seed,
        keep_anyway=True,
        **PRESETS[preset],
    )
    bundle = clone(task.target, task.source, task.images, config, report=lambda progress: task.report(progress.message))
    composed = attach(task.target[0], bundle)
    sizes = bundle.manifest.sizes
    return MethodOutput(
        lambda: predict(composed, task.target[1], task.test_images.images),
        numbers=sizes.module + sizes.adapter + sizes.head,
        macs=multiply_accumulates(composed, task.target[1]),
        images_used=len(task.images),
    )


if __name__ == "__main__":
    logging.getLogger("torch").setLevel(logging.ERROR)
    typer.run(main)
