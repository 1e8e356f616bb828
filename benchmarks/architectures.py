"""Run every architecture through the whole method: trace, prune, attach to a target, detach.

    python -m benchmarks.architectures --out results/architectures [--only NAME ...]

Networks are random and inputs small: the benchmark checks that a network can be traced and cut, and that
this is exact; it measures no accuracy. A repeated command continues an interrupted run and tries
architectures with a problem again.
"""

import argparse
import gc
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.survey.method import COLLECTED, Record, examine, small_size
from pnc_core.files import written_whole
from pnc_core.graph.architectures import architectures


def markdown(records: Iterable[Record]) -> str:
    """A markdown table, one row per architecture."""
    lines = [
        "| architecture | image | numbers | positions | groups | prunable | with streams | difference | restored | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for r in sorted(records, key=lambda record: record.architecture):
        cells = [
            r.architecture, str(r.size), f"{r.numbers / 1e6:.1f} M", str(r.positions), str(r.groups),
            f"{r.prunable_share:.0%}", f"{r.prunable_with_streams:.0%}", f"{r.max_difference:.0e}",
            "yes" if r.restored else "no", f"{r.seconds:.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |" if not r.problem else f"| {r.architecture} | {r.size} | {r.problem} |")
    return "\n".join(lines) + "\n"


def _load(path: Path) -> dict[str, Record]:
    if not path.is_file():
        return {}
    return {entry["architecture"]: Record(**entry) for entry in json.loads(path.read_text())}


def _save(path: Path, records: dict[str, Record]) -> None:
    with written_whole(path) as half:
        half.write_text(json.dumps([asdict(r) for r in records.values()], indent=1) + "\n")
    path.with_name("table.md").write_text(markdown(records.values()))


def main() -> None:
    """Examine all architectures of torchvision or of timm, or the named ones."""
    arguments = _arguments()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.timm:
        from benchmarks.survey.running import main as examine_timm  # imports timm, which takes seconds

        examine_timm(arguments)
    else:
        _examine_torchvision(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results and the table")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="architectures to examine again, e.g. torchvision/resnet18"
    )
    timm = parser.add_argument_group("timm")
    timm.add_argument("--timm", action="store_true", help="examine timm's architectures instead of torchvision's")
    timm.add_argument("--again", action="store_true", help="also try architectures again that had a problem")
    timm.add_argument("--largest", type=float, default=60, help="millions of numbers; larger networks are only traced")
    timm.add_argument("--structure", action="store_true", help="only trace, run nothing through the method")
    timm.add_argument("--report-only", action="store_true", help="write the report about the results, examine nothing")
    timm.add_argument("--report", type=Path, help="file for the report, docs/architectures-timm.md for example")
    return parser.parse_args()


def _examine_torchvision(arguments: argparse.Namespace) -> None:
    path = arguments.out / "results.json"
    records = _load(path)
    names = arguments.only or [name for name in architectures() if name.startswith("torchvision/")]
    todo = [n for n in names if arguments.only or n not in records or records[n].problem]
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("architectures", total=len(todo))
        for name in todo:
            progress.update(task, description=name)
            record = records[name] = examine(name, small_size(name))
            if record.numbers > COLLECTED:
                gc.collect()
            _save(path, records)
            progress.advance(task)
            if not record.passed:
                console.print(f"{name}: {record.problem or record}")
    passed = sum(records[name].passed for name in names)
    console.print(f"{passed} of {len(names)} passed; see {path.with_name('table.md')}")


if __name__ == "__main__":
    main()
