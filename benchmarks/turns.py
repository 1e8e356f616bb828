"""Compare the serving engine with another revision: throughput of short and of long requests, and the p99 of short
ones beside long ones.

    git show REVISION:app/serving/engine/engine.py > before.py
    python -m benchmarks.turns before.py

Both engines run in this process, in alternating rounds, on the same network.
"""

import asyncio
import importlib.util
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from app.serving.engine import engine as ours
from app.serving.engine.modes import Mode
from app.serving.engine.programs import Program, Trunk, put_together
from benchmarks.fairness import IMAGE, LARGE_IMAGES, median_and_p99
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.module.composed import without_modules

CONNECTIONS = 16


def main(
    before: Annotated[Path, typer.Argument(help="engine.py of the other revision.")],
    rounds: Annotated[int, typer.Option(help="Rounds of both engines.", min=1)] = 7,
    seconds: Annotated[float, typer.Option(help="Seconds of every measurement.", min=0.1)] = 3.0,
    width: Annotated[int, typer.Option(help="Channels of the network.")] = 16,
) -> None:
    """Measure and print one JSON object."""
    torch.set_num_threads(1)
    sys.setswitchinterval(50e-6)  # as in the serving process
    theirs = _loaded(before)
    torch.manual_seed(0)
    spec = NetworkSpec(
        architecture="cnn",
        options={"width": width},
        classes=("a", "b"),
        input_size=IMAGE,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    program = put_together(Trunk(without_modules(build_network(spec).eval(), spec), Mode()), [])
    found: dict[str, list[dict[str, float]]] = {"before": [], "after": []}
    for number in range(rounds):
        for name, module in sorted((("before", theirs), ("after", ours)), reverse=number % 2 == 0):
            found[name].append(asyncio.run(_round(module, program, seconds)))
    pairs = list(zip(found["after"], found["before"], strict=True))
    document = {
        "throughput_ratio": median(a["rps"] / b["rps"] for a, b in pairs),
        "long_throughput_ratio": median(a["long_images_per_second"] / b["long_images_per_second"] for a, b in pairs),
        **{name: {key: median(one[key] for one in rows) for key in rows[0]} for name, rows in found.items()},
    }
    sys.stdout.write(f"TURNS {json.dumps(document)}\n")


def _loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("before", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["before"] = module
    spec.loader.exec_module(module)
    return module


async def _round(module: Any, program: Program, seconds: float) -> dict[str, float]:
    engine = module.Engine(module.Limits(batch=8, wait=0.001))
    engine.start()
    one = torch.randint(0, 256, (1, *IMAGE), dtype=torch.uint8)
    long = torch.randint(0, 256, (LARGE_IMAGES, *IMAGE), dtype=torch.uint8)
    for size in (1, 8) * 3:
        engine.answer_now(program, long[:size])
    crowd = [asyncio.create_task(_ask(engine, program, one, seconds)) for _ in range(CONNECTIONS)]
    answers = sum(len(took) for took in await asyncio.gather(*crowd))
    alone = await _ask(engine, program, one, seconds)
    long_alone = await _ask(engine, program, long, seconds)
    other = asyncio.create_task(_ask(engine, program, long, seconds))
    await asyncio.sleep(0.05)
    beside = await _ask(engine, program, one, seconds)
    await other
    await asyncio.to_thread(engine.close)
    (_, a99), (_, b99) = median_and_p99(alone), median_and_p99(beside)
    return {
        "rps": answers / seconds,
        "long_images_per_second": LARGE_IMAGES * len(long_alone) / sum(long_alone),
        "alone_p99_ms": a99,
        "beside_p99_ms": b99,
        "ratio": b99 / a99,
    }


async def _ask(engine: Any, program: Program, images: torch.Tensor, seconds: float) -> list[float]:
    took, end = [], time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await engine.ask(program, images, 60.0)
        took.append(time.perf_counter() - begun)
    return took


if __name__ == "__main__":
    typer.run(main)
