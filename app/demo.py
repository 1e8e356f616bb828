"""`pnc demo`: the main job on real handwritten digits, done over HTTP as a user would.

Two small networks are trained here, one on the digits 0 to 4, one on 5 to 9.
Everything after that goes through the service and its client: register, clone
only 7, 8 and 9, download, attach, predict, detach.
"""

import io
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from app.client import Client, Dataset, Event, Job, Prediction
from app.client.parquet import write_parquet
from app.up import running
from app.zoo import processors
from app.zoo.settings import Settings
from pnc_core.composed import attach, detach
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.data import ImageSet, augment, batches, preprocess
from pnc_core.evaluation import direct_ensembles, evaluate, judge
from pnc_core.identity import fingerprint
from pnc_core.networks import build_network

DIGITS = tuple(str(i) for i in range(10))
LOW, HIGH, CLONED = DIGITS[:5], DIGITS[5:], ("7", "8", "9")
TEST_SHARE, JOB_SHARE = 0.3, 0.3
TRAIN_EPOCHS = 20
Network = tuple[nn.Module, NetworkSpec]


@dataclass(frozen=True)
class Material:
    """What a team would bring: two trained networks and images."""

    target: Network
    source: Network
    job: ImageSet
    """30 % of the images that the networks were trained on."""
    test: ImageSet
    """Images that nothing was learned from."""


@dataclass(frozen=True)
class Served:
    """What the service said of every test image."""

    predictions: list[Prediction]

    @property
    def fingerprint(self) -> str:
        """Of the live target."""
        return self.predictions[0].target_fingerprint

    def logits(self, classes: tuple[str, ...]) -> torch.Tensor:
        """Logits (N, classes) in a fixed order."""
        rows = [{c.name: c.logit for c in p.classes} for p in self.predictions]
        return torch.tensor([[row[name] for name in classes] for row in rows], dtype=torch.float64)


def run(seed: int, console: Console) -> None:
    """Do it all and print a table; the last line is `DEMO ` and one JSON object.

    Exits with 1 when a promise is not kept.

    Args:
        seed: Of the networks, the split and the job.
        console: Where to show it.
    """
    with tempfile.TemporaryDirectory(prefix="pnc-demo-") as folder:
        settings = Settings(data_dir=Path(folder), port=0, log_level="warning")
        with running(settings) as service:
            console.print(f"service is up at {service.url}")
            kept = run_against(service.url, seed, console)
    sys.exit(0 if kept else 1)


def run_against(url: str, seed: int, console: Console) -> bool:
    """The same against a service that is up and empty; returns whether all promises were kept."""
    began = time.monotonic()
    console.rule(f"Cloning digits {', '.join(CLONED)} into a network that knows {', '.join(LOW)}")
    material = prepare(seed, console)
    with tempfile.TemporaryDirectory(prefix="pnc-demo-") as folder, Client(url) as client:
        result = walk(client, material, Path(folder), seed, console)
    result["seconds_total"] = round(time.monotonic() - began, 1)
    console.print(_table(result))
    broken = _broken(result)
    for promise in broken:
        console.print(f"[red]not kept:[/red] {promise}")
    sys.stdout.write(f"DEMO {json.dumps(result)}\n")
    return not broken


def handwritten() -> ImageSet:
    """scikit-learn's 1,797 scans of digits, grey and 8 x 8."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
    return ImageSet(images, torch.from_numpy(digits.target).long(), DIGITS)


def prepare(seed: int, console: Console) -> Material:
    """Split scikit-learn's digits and train both networks."""
    torch.set_num_threads(processors.threads_for(0))  # networks this small only wait for each other on several
    everything = handwritten()
    generator = torch.Generator().manual_seed(seed)
    train, test = everything.split(TEST_SHARE, generator)
    _, job = train.split(JOB_SHARE, generator)
    with progress_on(console) as progress:
        target = trained(train.only(LOW), generator, progress, "training the target on 0 to 4")
        source = trained(train.only(HIGH), generator, progress, "training the source on 5 to 9")
    return Material(target, source, job, test)


def trained(images: ImageSet, generator: torch.Generator, progress: Progress, title: str) -> Network:
    """A small network that knows the classes of `images`, in eval mode; `progress` gets a bar with this title."""
    spec = NetworkSpec(
        architecture="cnn",
        classes=images.classes,
        input_size=(1, 8, 8),
        mean=(0.3,),
        std=(0.37,),
        options={"width": 32},
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
            loss = F.cross_entropy(network(preprocess(pixels, spec)), images.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance(task)
    return network.eval().requires_grad_(False), spec


def walk(client: Client, material: Material, folder: Path, seed: int, console: Console) -> dict[str, Any]:
    """The user's way through the service; returns the figures."""
    dataset = register(client, material, folder, console)
    job = _follow(client, dataset.id, seed, console)
    module = job.module or ""
    bundles = {p: client.modules.download(module, p, folder / f"{p}.safetensors") for p in ("thin", "full")}
    manifest = client.modules.manifest(module)
    figures = _serve(client, material, module, console) | _compare(material, bundles)
    return figures | {
        "source_bytes": (folder / "digits-high.safetensors").stat().st_size,
        "thin_bytes": bundles["thin"].stat().st_size,
        "full_bytes": bundles["full"].stat().st_size,
        "position": "{target}->{source}".format(**manifest["position"]),
        "head": manifest["head"]["kind"],
        "kept_fraction": manifest["kept_fraction"],
        "seconds_job": _seconds(job),
    }


def register(client: Client, material: Material, folder: Path, console: Console) -> Dataset:
    """Push both networks and the job's images; returns the dataset once both versions are ready."""
    for name, (network, spec) in {"digits-low": material.target, "digits-high": material.source}.items():
        path = folder / f"{name}.safetensors"
        safetensors.torch.save_file(network.state_dict(), path)
        path.with_suffix(".json").write_text(json.dumps(asdict(spec)))
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
    """Post the job and show its progress and every position that is tried."""
    # A file holds indices and a manifest beside its numbers: 0.58 of the numbers are less than 0.6 of the bytes.
    config = CloneConfig(classes=CLONED, seed=seed, epochs=60, batch_size=64, max_size=0.58)
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


def _serve(client: Client, material: Material, module: str, console: Console) -> dict[str, Any]:
    """Serve the target, attach the module, predict every test image, detach, predict again."""
    name = "digits"
    client.deployments.create(name, "digits-low")
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
    judged = judge(during.logits(classes)[used], alone[used], labels)
    difference = float((alone - after.logits(LOW)).abs().max())
    same_digest = before.fingerprint == after.fingerprint == fingerprint(material.target[0])
    return {
        "target_old": round(judged.target_old, 4),
        "target_all": round(float((alone[used].argmax(1) == labels).double().mean()), 4),
        "composed_old": round(judged.old, 4),
        "composed_new": round(judged.new, 4),
        "composed_avg": round(judged.average, 4),
        "composed_all": round(judged.all, 4),
        "locality": round(judged.locality, 4),
        "restored": same_digest and difference == 0.0,
        "target_digest_before": before.fingerprint,
        "target_digest_after": after.fingerprint,
        "max_logit_diff_after_detach": difference,
    }


def _predict_all(client: Client, name: str, images: ImageSet) -> Served:
    return Served([client.deployments.predict(name, png(image)) for image in images.images])


def _compare(material: Material, bundles: dict[str, Path]) -> dict[str, Any]:
    """The same bundle without a server, and the rivals that need no cloning."""
    target, source, test = material.target, material.source, material.test
    digest = fingerprint(target[0])
    full = attach(target[0], bundles["full"])
    thin = attach(target[0], bundles["thin"], source=source[0])
    local, local_thin = evaluate(full, test), evaluate(thin, test)
    untouched = detach(full) is target[0] and fingerprint(target[0]) == digest
    rivals = direct_ensembles(target, source, CLONED, test)
    best = max(rivals.values(), key=lambda rival: rival.average)
    return {
        "local_avg": round(local.average, 4),
        "thin_is_full": local == local_thin,
        "local_target_untouched": untouched,
        "ensemble_old": round(best.old, 4),
        "ensemble_new": round(best.new, 4),
        "ensemble_avg": round(best.average, 4),
        "ensemble_all": round(best.all, 4),
        "ensemble_locality": round(best.locality, 4),
        "ensemble_raw_avg": round(rivals["raw"].average, 4),
        "ensemble_softmax_avg": round(rivals["softmax"].average, 4),
    }


def _broken(result: dict[str, Any]) -> list[str]:
    promises = {
        "composed accuracy is at least 0.95": result["composed_avg"] >= 0.95,
        "composed is more accurate than the better direct ensemble": result["composed_avg"] > result["ensemble_avg"],
        "the target is restored bit for bit": result["restored"],
        "without a server the bundle gives the same accuracy": result["local_avg"] == result["composed_avg"],
        "thin and full bundle give the same answers": result["thin_is_full"],
        "attaching without a server leaves the target alone": result["local_target_untouched"],
        "the full bundle is smaller than 0.6 of the source": result["full_bytes"] < 0.6 * result["source_bytes"],
        "the thin bundle is smaller than 0.25 of the source": result["thin_bytes"] < 0.25 * result["source_bytes"],
    }
    return [promise for promise, kept in promises.items() if not kept]


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="Accuracy on test images, all classes competing", caption=_caption(result), min_width=78)
    for column in ("", "old (0-4)", "new (7-9)", "average", "all images", "locality"):
        table.add_column(column, justify="right" if column else "left")
    rows = (
        ("target alone", result["target_old"], 0.0, result["target_old"] / 2, result["target_all"], 1.0),
        ("direct ensemble", *(result[f"ensemble_{side}"] for side in ("old", "new", "avg", "all", "locality"))),
        ("composed", *(result[f"composed_{side}"] for side in ("old", "new", "avg", "all")), result["locality"]),
    )
    for name, *figures in rows:
        table.add_row(name, *(f"{figure:.4f}" for figure in figures))
    return table


def _caption(result: dict[str, Any]) -> str:
    source = result["source_bytes"]
    return (
        f"position {result['position']}, {result['head']} head, {result['kept_fraction']:.2f} of the tail kept; "
        f"source {source:,} B, full bundle {result['full_bytes'] / source:.0%}, "
        f"thin {result['thin_bytes'] / source:.0%}; job {result['seconds_job']} s; "
        f"target restored bit for bit: {'yes' if result['restored'] else 'NO'}"
    )


def progress_on(console: Console, *, quiet: bool = False) -> Progress:
    """Bars with a title, a share and the time."""
    columns = (TextColumn("{task.description:<32}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=quiet)


def png_rows(images: ImageSet) -> list[tuple[str, bytes]]:
    """Class name and PNG file of every image."""
    pairs = zip(images.images, images.labels.tolist(), strict=True)
    return [(images.classes[label], png(image)) for image, label in pairs]


def png(image: torch.Tensor) -> bytes:
    """A grey image, uint8 (1, H, W), as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(buffer, "PNG")
    return buffer.getvalue()
