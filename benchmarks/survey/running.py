"""Go through the architectures of timm and write one line of JSON after each, so that a run can be continued."""

import argparse
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.survey.examining import examine_structure, examine_whole
from benchmarks.survey.limits import LimitExceeded, Limits, call_limited
from benchmarks.survey.method import Record
from benchmarks.survey.reporting import report
from pnc_core.graph.architectures import timm_architectures

STRUCTURE, WHOLE = "structure", "whole"
"""The two steps of an architecture: traced without weights, and run through the method."""
Log = dict[str, dict[str, Record]]
"""The last record of every architecture, by step."""


def read_log(path: Path) -> Log:
    """The records of a log; of several lines about one architecture the last is valid."""
    log: Log = {STRUCTURE: {}, WHOLE: {}}
    for line in path.read_text().splitlines() if path.is_file() else ():
        entry = json.loads(line)
        step = entry.pop("step")
        log[step][entry["architecture"]] = Record(**entry)
    return log


def run(names: Iterable[str], path: Path, *, largest: float, again: bool, limits: Limits, structure_only: bool) -> Log:
    """Examine architectures that the log does not know yet.

    Args:
        names: Architectures, such as `timm/resnet18`.
        path: The log, one line of JSON for each step of an architecture.
        largest: Networks with more parameters and buffers are only traced.
        again: Also try architectures again that had a problem.
        limits: Limits of the process of each architecture.
        structure_only: Run no architecture through the method.

    Returns:
        All records of the log.
    """
    log, order = read_log(path), sorted(names)
    random.Random(0).shuffle(order)  # an interrupted run is a random sample

    def examined(step: str, name: str, *examine: Any) -> Record:
        known = log[step].get(name)
        if known is None or (again and known.problem):
            known = log[step][name] = _limited(name, limits, *examine)
            with path.open("a") as file:
                file.write(json.dumps({"step": step, **asdict(known)}) + "\n")
            Console().print(f"{step} {name}: {known.problem or 'no problem'}", soft_wrap=True, highlight=False)
        return known

    for name in order:
        found = examined(STRUCTURE, name, examine_structure, name)
        if not structure_only and not found.problem and found.numbers <= largest:
            examined(WHOLE, name, examine_whole, name, found.size)
    return log


def _limited(name: str, limits: Limits, examine: Callable[..., Record], *arguments: object) -> Record:
    try:
        record: Record = call_limited(examine, *arguments, limits=limits)
        return record
    except LimitExceeded as error:
        return replace(Record(name, 0), problem=f"limit: {error}")


def main(arguments: argparse.Namespace) -> None:
    """Examine the architectures of timm and write the report; `arguments` are those of benchmarks.architectures."""
    names = [*timm_architectures()]
    log = run(
        () if arguments.report_only else arguments.only or names,
        arguments.out / "timm.jsonl",
        largest=arguments.largest * 1e6,
        again=arguments.again or bool(arguments.only),
        limits=Limits(),
        structure_only=arguments.structure,
    )
    path = arguments.report or arguments.out / "timm.md"
    path.write_text(report(names, log[STRUCTURE], log[WHOLE]))
    Console().print(f"see {path}")
