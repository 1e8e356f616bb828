"""The report about timm's architectures as markdown: counts, reasons, and every name once."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from benchmarks.survey.method import TOLERANCE, Record

Records = Mapping[str, Record]
PASSED, WHOLE, REFUSED, FAILED, LIMITED, TRACED, UNTRIED = (
    "passed", "passed uncut", "refused with a reason", "failed", "over a limit", "traced only", "not tried"
)  # fmt: skip
MEANINGS = {
    PASSED: f"traced and cut; masked and removed channels agree to {TOLERANCE:.0e}; cloned, attached and detached",
    WHOLE: "cloned, attached and detached; no channel can be cut, so that a module holds its whole tail",
    REFUSED: "`pnc_core` refuses the network with an error that names the reason",
    FAILED: "a check did not hold, or an error without a reason came out",
    LIMITED: "the process had not ended within its limits of time and memory",
    TRACED: "traced and cut, but larger than the limit of this run or not reached yet",
    UNTRIED: "not reached yet",
}
_REFUSALS = ("NetworkError", "PositionError")


def outcome(structure: Record | None, whole: Record | None) -> str:
    """Outcome of one architecture from the records of its two steps."""
    if structure is None:
        return UNTRIED
    problem = structure.problem or (whole.problem if whole is not None else "")
    if problem:
        kind = problem.partition(":")[0]
        limited = kind == "limit" or "can't allocate memory" in problem
        return LIMITED if limited else REFUSED if kind in _REFUSALS else FAILED
    if whole is None:
        return TRACED
    if not whole.passed:
        return FAILED
    return PASSED if whole.groups else WHOLE


def reason(structure: Record, whole: Record | None) -> str:
    """The problem without names, numbers and advice, so that equal kinds have equal text."""
    problem = structure.problem or (whole.problem if whole is not None else "")
    if not problem:
        return "" if whole is None or whole.passed else "a check did not hold"
    text = re.sub(r"^timm/\S+: |'[^']*'|\"[^\"]*\"", _hidden, problem.partition(": ")[2].partition("; ")[0])
    text = re.sub(r"\d+", "N", re.sub(r" in \S+, line \d+", "", text))
    return text.replace("|", "/").strip()


def report(names: Iterable[str], structure: Records, whole: Records) -> str:
    """Markdown about all `names`.

    Args:
        names: Every architecture, such as `timm/resnet18`.
        structure: Records of the first step, by architecture.
        whole: Records of the second step.
    """
    by_outcome: dict[str, list[str]] = {kind: [] for kind in MEANINGS}
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        kind = outcome(structure.get(name), whole.get(name))
        short = name.removeprefix("timm/")
        by_outcome[kind].append(short)
        if kind in (REFUSED, FAILED, LIMITED):
            by_reason[reason(structure[name], whole.get(name))].append(short)
    total = sum(map(len, by_outcome.values()))
    lines = [*_head(total), *_counts(by_outcome), *_reasons(by_reason)]
    for kind in (PASSED, WHOLE, TRACED, UNTRIED):
        if by_outcome[kind]:
            lines += [f"## {kind.capitalize()}", "", ", ".join(by_outcome[kind]) + ".", ""]
    return "\n".join(lines)


def _hidden(match: re.Match[str]) -> str:
    return "" if match[0].startswith("timm/") else "'…'"


def _head(total: int) -> list[str]:
    return [
        "# Architectures of timm", "",
        f"Which of the {total} names of `timm.list_models()` of timm {version('timm')} can be a source and a target. "
        "[Architectures](architectures.md) explains the checks. The command that wrote this page:", "",
        "```", "python -m benchmarks.architectures --timm --out results/timm --report docs/architectures-timm.md",
        "```", "",
        "Each architecture runs in a process of its own with limits of time and memory, with random weights and a "
        "fixed seed, at the smallest input size from 64 pixels on at which it can be traced. The order is random, and "
        "a repeated command continues the run.", "",
    ]  # fmt: skip


def _counts(by_outcome: Mapping[str, list[str]]) -> list[str]:
    rows = [f"| {kind} | {len(found)} | {MEANINGS[kind]} |" for kind, found in by_outcome.items()]
    return ["| outcome | architectures | meaning |", "| --- | ---: | --- |", *rows, ""]


def _reasons(by_reason: Mapping[str, list[str]]) -> list[str]:
    if not by_reason:
        return []
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [f"| {text} | {len(found)} | {', '.join(found)} |" for text, found in ordered]
    return ["## Reasons", "", "| reason | count | architectures |", "| --- | ---: | --- |", *rows, ""]
