"""Check the demo's promises over many seeds, instruction sets and numbers of threads.

    python -m benchmarks.demo --seeds 0-19 --threads 1,2 --isa unset,avx2,default --out results/demo.jsonl

runs the job of `pnc demo` without the service: the same networks, images, job and promises. Each setting runs in a
separate process, because torch reads it at import: `ATEN_CPU_CAPABILITY` selects torch's own kernels, and
`ONEDNN_MAX_CPU_ISA` the convolution kernels of oneDNN; `default` has neither AVX2 nor AVX-512. Each run writes one
line of JSON. Runs with a line in the file are not repeated, so that an interrupted command can be continued. The exit
status is 1 if a run broke a promise.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
import typer
from rich.console import Console
from rich.table import Table

from app import demo
from app.promises import broken, compare, figures_of
from pnc_core.analysis.evaluation import evaluate, predict
from pnc_core.identity import fingerprint
from pnc_core.method.clone import clone
from pnc_core.module.composed import attach, detach

SETTINGS: dict[str, dict[str, str]] = {
    "unset": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""Environment variables that limit the instruction set; `unset` has no limit."""
METHODS = {
    "direct ensemble": ("ensemble_old", "ensemble_new", "ensemble_avg", "ensemble_locality"),
    "composed": ("composed_old", "composed_new", "composed_avg", "locality"),
}


def main(
    out: Annotated[Path, typer.Option(help="File of JSON lines, one per run; its runs are not repeated.")],
    seeds: Annotated[str, typer.Option(help="A range such as 0-19, or a list.")] = "0-19",
    threads: Annotated[str, typer.Option(help="Numbers of torch's threads, a list.")] = "1,2",
    isa: Annotated[str, typer.Option(help=f"A list of {', '.join(SETTINGS)}.")] = "unset,avx2,default",
    only: Annotated[str, typer.Option(hidden=True, help="The setting of a child process.")] = "",
) -> None:
    """Run all missing runs and print two tables."""
    wanted = [(name, int(count)) for name in isa.split(",") for count in threads.split(",")]
    out.parent.mkdir(parents=True, exist_ok=True)
    if only:
        _run(out, only, int(threads), _numbers(seeds))
        return
    for name, count in wanted:
        _start(out, name, count, seeds)
    rows = _rows(out)
    asked = [row for row in rows if (row["isa"], row["threads"]) in wanted and row["seed"] in _numbers(seeds)]
    console = Console(width=110)
    console.print(_accuracies(asked))
    console.print(_table(asked))
    sys.exit(1 if any(row["broken"] for row in asked) else 0)


def _numbers(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(number) for number in text.split(",")]


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _start(out: Path, name: str, threads: int, seeds: str) -> None:
    """Run one setting in a child process."""
    kept = {key: value for key, value in os.environ.items() if key not in SETTINGS["avx2"]}
    setting = kept | SETTINGS[name] | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    given = ["--out", str(out), "--seeds", seeds, "--threads", str(threads), "--only", name]
    subprocess.run([sys.executable, "-m", "benchmarks.demo", *given], env=setting, check=True)


def _run(out: Path, name: str, threads: int, seeds: list[int]) -> None:
    torch.set_num_threads(threads)
    there = {(row["isa"], row["threads"], row["seed"]) for row in _rows(out)}
    for seed in seeds:
        if (name, threads, seed) not in there:
            row = {"isa": name, "kernels": torch.backends.cpu.get_cpu_capability(), "threads": threads}
            with out.open("a") as file:
                file.write(json.dumps(row | measure(seed)) + "\n")


def measure(seed: int) -> dict[str, Any]:
    """Run the demo's job of one seed without the service; returns its figures and the broken promises."""
    began = time.monotonic()
    material = demo.prepare(seed, Console(file=io.StringIO()), demo.HARD)
    (target, spec), test = material.target, material.test
    alone, digest = predict(target, spec, test.images), fingerprint(target)
    started = time.monotonic()
    bundle = clone(material.target, material.source, material.job, demo.job_config(seed))
    result: dict[str, Any] = {"seed": seed, "seconds_job": round(time.monotonic() - started, 1)}
    composed = attach(target, bundle)
    result |= figures_of(evaluate(composed, test))
    answers = predict(composed, spec, test.only(composed.classes).images)
    restored = detach(composed) is target and fingerprint(target) == digest
    result["restored"] = restored and torch.equal(predict(target, spec, test.images), alone)
    with tempfile.TemporaryDirectory(prefix="pnc-demo-") as folder:
        paths = {name: Path(folder, name) for name in ("source", "full", "thin")}
        safetensors.torch.save_file(material.source[0].state_dict(), paths["source"])
        bundle.write(paths["full"])
        bundle.thin().write(paths["thin"])
        result |= compare(material.target, material.source, demo.CLONED, test, paths, answers)
        result |= {f"{name}_bytes": path.stat().st_size for name, path in paths.items()}
    manifest = bundle.manifest
    result |= {"position": str(manifest.position), "head": manifest.head.kind, "kept_fraction": manifest.kept_fraction}
    return result | {"broken": broken(result), "seconds": round(time.monotonic() - began, 1)}


def _accuracies(rows: list[dict[str, Any]]) -> Table:
    """Mean and standard deviation over all runs, in percent."""
    table = Table(title=f"{len(rows)} runs")
    for column in ("", "old", "new", "average", "locality"):
        table.add_column(column, justify="right" if column else "left")
    old = torch.tensor([100 * row["target_old"] for row in rows]).double()
    table.add_row("target alone", f"{float(old.mean()):.1f} ± {float(old.std(correction=0)):.1f}", "0", "", "100")
    for name, fields in METHODS.items():
        values = [torch.tensor([100 * row[field] for row in rows]).double() for field in fields]
        table.add_row(name, *(f"{float(v.mean()):.1f} ± {float(v.std(correction=0)):.1f}" for v in values))
    return table


def _table(rows: list[dict[str, Any]]) -> Table:
    """One line per setting: means over seeds, the lowest value of each promised figure, and the number of broken
    runs."""
    table = Table(title="The demo's job")
    columns = (
        "setting",
        "threads",
        "seeds",
        "ensemble",
        "composed",
        "least",
        "least gain",
        "locality, least",
        "broken",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "setting" else "right")
    for setting in sorted({(row["isa"], row["threads"]) for row in rows}):
        here = [row for row in rows if (row["isa"], row["threads"]) == setting]
        composed, ensemble = ([row[f"{kind}_avg"] for row in here] for kind in ("composed", "ensemble"))
        gains = [row["composed_avg"] - row["ensemble_avg"] for row in here]
        means = (sum(values) / len(here) for values in (ensemble, composed))
        least = (min(composed), min(gains), min(row["locality"] for row in here))
        shown = (f"{100 * value:.1f}" for value in (*means, *least))
        table.add_row(*map(str, setting), str(len(here)), *shown, str(sum(bool(row["broken"]) for row in here)))
    return table


if __name__ == "__main__":
    typer.run(main)
