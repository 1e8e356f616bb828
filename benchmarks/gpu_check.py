"""Run the library on a GPU and on the processor and compare both; needs a host with CUDA.

    deploy/gpu_check.sh [--out results/gpu]              sets up an environment with CUDA first
    python -m benchmarks.gpu_check [--out results/gpu]

If torch cannot use CUDA, the command says so and exits with 2. Otherwise it prints a table with one row per path: time
on both devices, the GPU's peak memory and its estimate before the start (`pnc_core.method.memory`), and the largest
difference of the logits. It exits with 1 if a path failed or differs too much.
"""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from app.serving.engine.engine import Engine, Limits
from app.serving.engine.modes import Mode
from app.serving.engine.programs import Branch, Program, Trunk, put_together
from pnc_core.analysis.evaluation import evaluate, predict
from pnc_core.analysis.residue import residue
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.devices import device_of, has_bfloat16
from pnc_core.errors import ConfigError
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.balance import rebalance
from pnc_core.method.clone import clone
from pnc_core.method.memory import estimate
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach, detach, without_modules
from pnc_core.module.export import to_program

ARCHITECTURES = (
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
    "torchvision/vit_b_16",
    "torchvision/convnext_tiny",
)
PRESETS: dict[str, dict[str, Any]] = {
    "clone fast": {"preset": "fast"},
    "clone joint": {"epochs": 2},
    "clone refine": {"epochs": 2, "refine": 1},
    "clone strict": {"preset": "fast", "locality": "strict"},
    "clone without old images": {"preset": "fast", "old_images": False},
    "clone without labels": {"preset": "fast", "labels": False},
    "clone fast in bfloat16": {"preset": "fast", "precision": "bfloat16"},
}
USUAL: dict[str, Any] = {
    "shortlist": 1,
    "views": 1,
    "screen_images": 64,
    "batch_size": 32,
    "max_size": 2.0,
    "keep_anyway": True,
}
APART = 1e-3
"""Largest accepted difference of the logits between both devices, as a share of the largest logit."""
SIZE, IMAGES = 64, 140
Network = tuple[nn.Module, NetworkSpec]


@dataclass(frozen=True)
class Row:
    """Result of one path of one architecture: seconds on each device, memory of the GPU in MiB, difference of the
    logits.
    """

    architecture: str
    path: str
    cpu: float
    gpu: float
    peak: float
    apart: float
    error: str = ""
    estimated: float | None = None
    """Peak that was estimated before the start; None: the path is no job."""

    @property
    def good(self) -> bool:
        """Whether the path ran, and both devices agree."""
        return not self.error and self.apart <= APART


def main(
    out: Annotated[Path | None, typer.Option(help="Folder for gpu_check.json.")] = None,
    architectures: Annotated[str, typer.Option(help="Architectures, a list; all by default.")] = ",".join(
        ARCHITECTURES
    ),
) -> None:
    """Check this host's GPU."""
    console = Console()
    try:
        device_of("cuda")
    except ConfigError as error:
        console.print(f"nothing to check: {error}")
        raise typer.Exit(2) from None
    rows = [row for name in architectures.split(",") for row in check(name, "cuda")]
    facts = _about()
    console.print(_table(rows, ", ".join(f"{name} {value}" for name, value in facts.items())))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        document = {**facts, "rows": [asdict(row) for row in rows]}
        (out / "gpu_check.json").write_text(json.dumps(document, indent=2) + "\n")
    raise typer.Exit(0 if all(row.good for row in rows) else 1)


def _about() -> dict[str, str]:
    """The GPU, its driver, and the build of torch."""
    tool = shutil.which("nvidia-smi")
    driver = "unknown"
    if tool is not None:
        command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        driver = told[0] if told else driver
    return {
        "GPU": torch.cuda.get_device_name(),
        "driver": driver,
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
    }


def check(architecture: str, device: str) -> list[Row]:
    """Run all paths of one architecture on the processor and on a device."""
    images = _images()
    plain, moved = _networks(architecture, "cpu"), _networks(architecture, device)
    rows, bundle = [], None
    for path, settings in PRESETS.items():
        if settings.get("precision") == "bfloat16" and not has_bfloat16(device):
            continue
        config = CloneConfig(classes=("d", "e"), **USUAL, **settings)
        made: list[Bundle] = []

        def cloned(networks: tuple[Network, Network], config: CloneConfig = config, made: list[Bundle] = made) -> Any:
            made.append(clone(*networks, images, config))
            return None

        needed = estimate(trace(*moved[0]), trace(*moved[1]), IMAGES, config).device / 2**20
        row = _compared(architecture, path, cloned, (plain, moved), device)
        rows.append(replace(row, estimated=needed if device == "cuda" else None))
        if made and not rows[-1].error:
            bundle = made[-1]
            rows.append(_compared(architecture, f"attach, {path}", _attached(bundle, images), (plain, moved), device))
    if bundle is not None:
        rows += [
            _compared(architecture, path, work(bundle, images), (plain, moved), device) for path, work in LATER.items()
        ]
    return rows


def _networks(architecture: str, device: str) -> tuple[Network, Network]:
    made = []
    for seed, classes in enumerate(("abc", "defg")):
        spec = NetworkSpec(
            architecture=architecture,
            classes=tuple(classes),
            input_size=(3, SIZE, SIZE),
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append((build_network(spec).requires_grad_(False).to(device), spec))
    return made[0], made[1]


def _images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(IMAGES) % 7, tuple("abcdefg"))


Work = Callable[[tuple[Network, Network]], torch.Tensor | None]


def _attached(bundle: Bundle, images: ImageSet) -> Work:
    def work(networks: tuple[Network, Network]) -> torch.Tensor:
        target, source = networks
        before = fingerprint(target[0])
        composed = attach(target[0], bundle.thin(), source[0])
        logits = predict(composed, target[1], images.images)
        if detach(composed) is not target[0] or fingerprint(target[0]) != before:
            raise RuntimeError("detach: expected the unchanged target, got a changed one")
        return logits

    return work


def _evaluated(bundle: Bundle, images: ImageSet) -> Work:
    def work(networks: tuple[Network, Network]) -> None:
        evaluate(attach(networks[0][0], bundle), images)

    return work


def _served(bundle: Bundle, images: ImageSet) -> Work:
    """The answers of the serving process's engine."""

    def work(networks: tuple[Network, Network]) -> torch.Tensor:
        target, spec = networks[0]
        device = str(next(target.parameters()).device)
        trunk = Trunk(without_modules(target, spec), Mode(device=device))
        program = put_together(trunk, [Branch(attach(trunk.target, bundle).attached[0], trunk)])
        return asyncio.run(_asked(program, images.images[:32]))

    return work


async def _asked(program: Program, pixels: torch.Tensor) -> torch.Tensor:
    engine = Engine(Limits())
    engine.start()
    try:
        return await engine.ask(program, pixels, seconds=600)
    finally:
        engine.close()


def _rebalanced(bundle: Bundle, images: ImageSet) -> Work:
    def work(networks: tuple[Network, Network]) -> torch.Tensor:
        composed = attach(networks[0][0], bundle)
        return predict(rebalance(composed, images), networks[0][1], images.images)

    return work


def _residue(bundle: Bundle, images: ImageSet) -> Work:
    def work(networks: tuple[Network, Network]) -> None:
        residue(*networks, bundle, images)

    return work


def _exported(bundle: Bundle, images: ImageSet) -> Work:
    def work(networks: tuple[Network, Network]) -> torch.Tensor:
        program = to_program(attach(networks[0][0], bundle), networks[0][1], pixels=True)
        logits: torch.Tensor = program.module()(images.images[:8])
        return logits

    return work


LATER: dict[str, Callable[[Bundle, ImageSet], Work]] = {
    "evaluate": _evaluated,
    "rebalance": _rebalanced,
    "residue": _residue,
    "export": _exported,
    "serving": _served,
}
"""Paths that take a module."""


def _compared(
    architecture: str, path: str, work: Work, networks: tuple[tuple[Network, Network], ...], device: str
) -> Row:
    """Run one path on the processor, then on the device; an exception on the device becomes the row's error."""
    plain, moved = networks
    wanted, on_cpu = _timed(work, plain, "cpu")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        got, on_gpu = _timed(work, moved, device)
    except Exception as error:  # the check reports any error of the device
        return Row(architecture, path, on_cpu, float("nan"), 0.0, float("nan"), f"{type(error).__name__}: {error}")
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0
    apart = 0.0
    if wanted is not None and got is not None:
        apart = float((got.detach().cpu() - wanted.detach()).abs().max() / wanted.detach().abs().max())
    return Row(architecture, path, on_cpu, on_gpu, peak, apart)


def _timed(work: Work, networks: tuple[Network, Network], device: str) -> tuple[torch.Tensor | None, float]:
    began = time.perf_counter()
    answer = work(networks)
    if device == "cuda":
        torch.cuda.synchronize()
    return answer, time.perf_counter() - began


def _table(rows: list[Row], name: str) -> Table:
    table = Table(
        "architecture", "path", "processor, s", "GPU, s", "peak, MiB", "estimate, MiB", "apart", "", title=name
    )
    for row in rows:
        verdict = row.error.splitlines()[0][:80] if row.error else "ok" if row.good else f"more than {APART:g} apart"
        table.add_row(
            row.architecture,
            row.path,
            f"{row.cpu:.2f}",
            f"{row.gpu:.2f}",
            f"{row.peak:.0f}",
            "" if row.estimated is None else f"{row.estimated:.0f}",
            f"{row.apart:.1e}",
            verdict,
        )
    return table


if __name__ == "__main__":
    typer.run(main)
