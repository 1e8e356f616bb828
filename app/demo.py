"""`pnc demo`: a complete cloning job on real handwritten digits, over HTTP.

The demo trains two small networks, one on the digits 0 to 4 and one on 5 to 9.
It does the rest through the service and its client: register, clone
7, 8 and 9, download, attach, predict, detach. A black square covers a part of every scan, so that
no method comes near the ceiling. Finally it checks the promises of `app.promises`.
"""

import io
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn
from torch.nn import functional as F

from app.process.resources import processors
from app.promises import broken, compare, figures_of, table
from app.settings import Settings
from app.up import running
from pnc_client import Client, Dataset, Event, Job, Prediction
from pnc_client.parquet import write_parquet
from pnc_core.analysis.evaluation import judge
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet, augment, batches, preprocess

DIGITS = tuple(str(i) for i in range(10))
LOW, HIGH, CLONED = DIGITS[:5], DIGITS[5:], ("7", "8", "9")
TRAIN_EPOCHS = 20
Network = tuple[nn.Module, NetworkSpec]


@dataclass(frozen=True)
class Task:
    """Sizes and difficulty of the demo."""

    test_share: float = 0.3
    """Share of all images that are test images."""
    job_share: float = 0.3
    """Share of the training images that the job gets."""
    blot: int = 0
    """Side in pixels of the black square in every image; 0: no square."""
    width: int = 32
    """Width of both networks."""
    smoothing: float = 0.0
    """Label smoothing of the source. It lowers the source's confidence, because networks of different origin are seldom
    equally confident and their logits are not comparable."""


EASY = Task()
"""Scans without a square: all networks have an accuracy of 98 to 99 %."""
HARD = Task(test_share=0.6, job_share=0.55, blot=2, width=16, smoothing=0.2)
"""Task of the demo: 2 x 2 of the 8 x 8 pixels are black, and the job has 40 images for each class."""


@dataclass(frozen=True)
class Material:
    """Two trained networks, and images."""

    target: Network
    source: Network
    job: ImageSet
    """Images of the job, a part of the training images."""
    test: ImageSet
    """Test images, on which no network was trained."""


@dataclass(frozen=True)
class Served:
    """Predictions of the service for all test images."""

    predictions: list[Prediction]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the live target."""
        return self.predictions[0].target_fingerprint

    def logits(self, classes: tuple[str, ...]) -> torch.Tensor:
        """Logits, float64 (N, classes), with columns in the given order."""
        rows = [{c.name: c.logit for c in p.classes} for p in self.predictions]
        return torch.tensor([[row[name] for name in classes] for row in rows], dtype=torch.float64)


def run(seed: int, console: Console) -> None:
    """Start a service, run the demo and exit. The last line of output is `DEMO ` and a JSON object.

    The exit code is 1 if a promise is not kept.

    Args:
        seed: Seed of the networks, the split and the job.
        console: Receives progress and the table.
    """
    import sklearn.datasets  # noqa: F401 - without this package the command ends before it starts a service

    with tempfile.TemporaryDirectory(prefix="pnc-demo-") as folder:
        settings = Settings(data_dir=Path(folder), port=0, log_level="warning")
        with running(settings) as service:
            console.print(f"service is up at {service.url}")
            kept = run_against(service.url, seed, console)
    sys.exit(0 if kept else 1)


def run_against(url: str, seed: int, console: Console) -> bool:
    """Run the demo against a running, empty service; returns whether all promises were kept."""
    began = time.monotonic()
    console.rule(f"Cloning digits {', '.join(CLONED)} into a network that knows {', '.join(LOW)}")
    material = prepare(seed, console, HARD)
    with tempfile.TemporaryDirectory(prefix="pnc-demo-") as folder, Client(url) as client:
        result = walk(client, material, Path(folder), seed, console)
    result["seconds_total"] = round(time.monotonic() - began, 1)
    console.print(table(result))
    failed = broken(result)
    for promise in failed:
        console.print(f"[red]not kept:[/red] {promise}")
    sys.stdout.write(f"DEMO {json.dumps(result)}\n")
    return not failed


def handwritten() -> ImageSet:
    """scikit-learn's 1,797 scans of digits, grey, 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
    return ImageSet(images, torch.from_numpy(digits.target).long(), DIGITS)


def blotted(images: ImageSet, side: int, generator: torch.Generator) -> ImageSet:
    """Copy with a black square of `side` pixels at a random place in every image. Equal on every processor."""
    count, _, height, width = images.images.shape
    rows, columns = (_inside(count, size, side, generator) for size in (height, width))
    hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
    return replace(images, images=images.images.masked_fill(hidden, 0))


def _inside(count: int, size: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Rows (or columns) that the square of each image covers, bool (N, size)."""
    first = torch.randint(0, size - side + 1, (count, 1), generator=generator)
    places = torch.arange(size)
    return (places >= first) & (places < first + side)


def prepare(seed: int, console: Console, task: Task = EASY) -> Material:
    """Split scikit-learn's digits and train both networks."""
    torch.set_num_threads(processors.threads_for(0))  # several threads slow down networks of this size
    generator = torch.Generator().manual_seed(seed)
    images = handwritten()
    if task.blot:
        images = blotted(images, task.blot, generator)
    train, test = images.split(task.test_share, generator)
    _, job = train.split(task.job_share, generator)
    low, high = train.only(LOW), train.only(HIGH)
    with progress_on(console) as progress:
        target = trained(low, generator, progress, "training the target on 0 to 4", width=task.width)
        title = "training the source on 5 to 9"
        source = trained(high, generator, progress, title, width=task.width, smoothing=task.smoothing)
    return Material(target, source, job, test)


def trained(
    images: ImageSet,
    generator: torch.Generator,
    progress: Progress,
    title: str,
    *,
    width: int = 32,
    smoothing: float = 0.0,
) -> Network:
    """Train a small network on images, with a progress bar; returns it in eval mode."""
    spec = NetworkSpec(
        architecture="cnn",
        classes=images.classes,
        input_size=(1, 8, 8),
        mean=(0.3,),
        std=(0.37,),
        options={"width": width},
    )
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network = build_network(spec).train()
    steps = TRAIN_EPOCHS * -(-len(images) // 64)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    task = progress.add_task(title, total=steps)
    for _ in range(TRAIN_EPOCHS):
        for index in batches(len(images), 64, generator):
            pixels = augment(images.images[index], "shift", generator)
            loss = F.cross_entropy(network(preprocess(pixels, spec)), images.labels[index], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance(task)
    return network.eval().requires_grad_(False), spec


def walk(client: Client, material: Material, folder: Path, seed: int, console: Console) -> dict[str, Any]:
    """Go through all steps of a user; returns the figures."""
    dataset = register(client, material, folder, console)
    job = _follow(client, dataset.id, seed, console)
    module = job.module or ""
    bundles = {p: client.modules.download(module, p, folder / f"{p}.safetensors") for p in ("thin", "full")}
    manifest = client.modules.manifest(module)
    figures, served = _serve(client, material, module, console)
    figures |= compare(material.target, material.source, CLONED, material.test, bundles, served)
    return figures | {
        "source_bytes": (folder / "digits-high.safetensors").stat().st_size,
        "thin_bytes": bundles["thin"].stat().st_size,
        "full_bytes": bundles["full"].stat().st_size,
        "position": "{target}->{source}".format(**manifest["position"]),
        "head": manifest["head"]["kind"],
        "kept_fraction": manifest["kept_fraction"],
        "seconds_job": _seconds(job),
    }


def job_config(seed: int) -> CloneConfig:
    """Configuration of the demo's job."""
    # Half of the source's numbers, plus indices and a manifest, take less than 0.6 of its bytes.
    return CloneConfig(classes=CLONED, seed=seed, preset="fast", batch_size=64, max_size=0.5)


def register(client: Client, material: Material, folder: Path, console: Console) -> Dataset:
    """Push both networks and the job's images; returns the dataset when both versions are ready."""
    for name, (network, spec) in {"digits-low": material.target, "digits-high": material.source}.items():
        path = folder / f"{name}.safetensors"
        safetensors.torch.save_file(network.state_dict(), path)
        path.with_suffix(".json").write_text(json.dumps(spec.to_dict()))
        version = client.models.wait(name, client.models.push(name, spec, path).number)
        console.print(
            f"registered {version.ref}: {version.parameters:,} parameters, {version.fingerprint:.20}...",
            highlight=False,
        )
    write_parquet(folder / "digits.parquet", png_rows(material.job), DIGITS)
    dataset = client.datasets.push(folder / "digits.parquet")
    console.print(f"registered {dataset.id}: {dataset.rows} images", highlight=False)
    return dataset


def _follow(client: Client, dataset: str, seed: int, console: Console) -> Job:
    """Submit the job, and show its progress and all trials."""
    config = job_config(seed)
    verdict = client.jobs.validate("digits-low", "digits-high", dataset, config)
    if not verdict.valid:
        raise SystemExit(f"the service refuses the job: {verdict.problems}")
    job = client.jobs.create("digits-low", "digits-high", dataset, config)
    console.print(f"posted {job.id}", highlight=False)
    with progress_on(console) as progress:
        task = progress.add_task("queued", total=1.0)

        def show(event: Event) -> None:
            progress.update(task, description=event.stage or event.state, completed=event.progress)
            if event.type == "trial":
                progress.console.print(_trial_line(event.data), highlight=False)

        job = client.jobs.wait(job.id, show)
    if job.state != "succeeded":
        raise SystemExit(f"the job ended {job.state}: {job.problem}")
    return job


def _seconds(job: Job) -> float:
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return round((job.finished_at - job.started_at).total_seconds(), 1)


def _trial_line(trial: dict[str, Any]) -> str:
    stage = f"round {trial['round']}" if trial["round"] else "screen "
    where = f"{trial['target_position']} -> {trial['source_position']}"
    bar = "━" * round(20 * trial["score"])
    return f"  {stage}  {where:<24} {trial['score']:.3f} [cyan]{bar:<20}[/cyan] {trial['parameters']:>7,} numbers"


def _serve(client: Client, material: Material, module: str, console: Console) -> tuple[dict[str, Any], torch.Tensor]:
    """Serve the target, attach the module, predict every test image, detach, predict again.

    Returns:
        The figures, and the logits of the target with the module for the images of their classes, float64 (N, classes).
    """
    name = "digits"
    client.deployments.create(name, "digits-low").wait()
    before = _predict_all(client, name, material.test)
    client.deployments.attach(name, module)
    console.print(f"attached {module} to the live deployment {name!r}", highlight=False)
    during = _predict_all(client, name, material.test)
    client.deployments.detach(name, module)
    console.print(f"detached {module}", highlight=False)
    after = _predict_all(client, name, material.test)

    classes = (*LOW, *CLONED)
    used = torch.isin(material.test.labels, torch.tensor([DIGITS.index(c) for c in classes]))
    labels = material.test.only(classes).labels
    alone = before.logits(LOW)
    answers = during.logits(classes)[used]
    same_digest = before.fingerprint == after.fingerprint == fingerprint(material.target[0])
    difference = float((alone - after.logits(LOW)).abs().max())
    return figures_of(judge(answers, alone[used], labels)) | {
        "target_all": round(float((alone[used].argmax(1) == labels).double().mean()), 4),
        "restored": same_digest and difference == 0.0,
        "target_digest_before": before.fingerprint,
        "target_digest_after": after.fingerprint,
        "max_logit_diff_after_detach": difference,
    }, answers


def _predict_all(client: Client, name: str, images: ImageSet) -> Served:
    return Served([client.deployments.predict(name, png(image)) for image in images.images])


def progress_on(console: Console, *, quiet: bool = False) -> Progress:
    """Progress bars with title, percentage and elapsed time."""
    columns = (TextColumn("{task.description:<32}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet)


def png_rows(images: ImageSet) -> list[tuple[str, bytes]]:
    """Class name and PNG file of each image."""
    pairs = zip(images.images, images.labels.tolist(), strict=True)
    return [(images.classes[label], png(image)) for image, label in pairs]


def png(image: torch.Tensor) -> bytes:
    """A grey image, uint8 (1, H, W), as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(buffer, "PNG")
    return buffer.getvalue()
