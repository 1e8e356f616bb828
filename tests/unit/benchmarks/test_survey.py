"""The run over timm's architectures: what is done again, and what the report says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.survey import running
from benchmarks.survey.examining import examine_structure
from benchmarks.survey.limits import LimitExceeded, Limits
from benchmarks.survey.method import Record
from benchmarks.survey.reporting import outcome, reason, report
from benchmarks.survey.running import STRUCTURE, WHOLE, read_log, run

TRACED = Record("timm/a", 64, 1_000_000, 8, "layer1.0", 3, 0.5)
DONE = replace(TRACED, max_difference=1e-7, restored=True)


UNCUT = replace(DONE, groups=0, prunable_share=0.0, max_difference=float("inf"))


def test_a_network_that_cannot_be_cut_is_an_outcome_of_its_own() -> None:
    assert outcome(TRACED, UNCUT) == "passed uncut"
    assert outcome(TRACED, replace(UNCUT, restored=False)) == "failed"
    assert "## Passed uncut" in report(["timm/a"], {"timm/a": TRACED}, {"timm/a": UNCUT})


def _pruned_nothing(name: str) -> Record:
    problem = f"PositionError: position {name!r}: expected channels that can be pruned behind it, found none"
    return replace(TRACED, architecture=f"timm/{name}", problem=problem)


class _Examined:
    """Takes the place of the child processes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.broken: set[str] = set()

    def __call__(self, function: Any, name: str, *rest: Any, limits: Limits) -> Record:
        self.calls.append((function.__name__, name, *rest))
        if name in self.broken:
            raise LimitExceeded("more than 5 s of one core")
        record = DONE if rest else TRACED
        return replace(record, architecture=name, numbers=10**8 if name == "timm/large" else 10**6)


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> _Examined:
    made = _Examined()
    monkeypatch.setattr(running, "call_limited", made)
    return made


def _run(path: Path, *names: str, again: bool = False, structure_only: bool = False, largest: float = 6e7) -> Any:
    return run(
        names, path, largest=largest, again=again, limits=Limits(seconds=5), structure_only=structure_only
    )  # fmt: skip


def test_a_run_continues_where_an_earlier_one_ended(tmp_path: Path, examined: _Examined) -> None:
    log = tmp_path / "timm.jsonl"
    _run(log, "timm/a", "timm/large", structure_only=True)
    assert sorted(examined.calls) == [("examine_structure", "timm/a"), ("examine_structure", "timm/large")]
    examined.calls.clear()
    _run(log, "timm/a", "timm/large", "timm/b")
    assert sorted(examined.calls) == [
        ("examine_structure", "timm/b"), ("examine_whole", "timm/a", 64), ("examine_whole", "timm/b", 64)
    ]  # fmt: skip
    examined.calls.clear()
    _run(log, "timm/a", "timm/large", "timm/b", largest=1e9)
    assert examined.calls == [("examine_whole", "timm/large", 64)]
    assert len(log.read_text().splitlines()) == 6


def test_a_problem_is_tried_again_only_if_asked(tmp_path: Path, examined: _Examined) -> None:
    log = tmp_path / "timm.jsonl"
    examined.broken = {"timm/a"}
    _run(log, "timm/a")
    assert read_log(log)[STRUCTURE]["timm/a"].problem == "limit: more than 5 s of one core"
    examined.broken = set()
    assert _run(log, "timm/a")[WHOLE] == {}
    assert [*_run(log, "timm/a", again=True)[WHOLE]] == ["timm/a"]
    assert read_log(log)[STRUCTURE]["timm/a"].problem == ""


@pytest.mark.parametrize(
    ("structure", "whole", "told"),
    [
        (None, None, "not tried"),
        (TRACED, None, "traced only"),
        (TRACED, DONE, "passed"),
        (TRACED, replace(DONE, restored=False), "failed"),
        (TRACED, replace(DONE, problem="RuntimeError: sizes"), "failed"),
        (TRACED, replace(DONE, problem="limit: more than 5 s of one core"), "over a limit"),
        (TRACED, replace(DONE, problem="RuntimeError: can't allocate memory: you tried"), "over a limit"),
        (_pruned_nothing("a"), None, "refused with a reason"),
        (replace(TRACED, problem="IndexError: tuple index out of range"), None, "failed"),
    ],
)
def test_every_pair_of_records_has_one_outcome(structure: Record | None, whole: Record | None, told: str) -> None:
    assert outcome(structure, whole) == told


def test_reasons_of_one_kind_have_one_text() -> None:
    first, second = (
        f"NetworkError: network: expected a forward without branches, got {node!r} in {code}, line {line}; compute both"
        for node, code, line in (("lt", "Padding.forward", 4), ("eq_3", "check", 125))
    )
    texts = {reason(replace(TRACED, problem=text), None) for text in (first, second)}
    assert texts == {"network: expected a forward without branches, got '…'"}
    assert reason(TRACED, replace(DONE, restored=False)) == "a check did not hold"


def test_the_report_names_every_architecture_once_and_counts_them() -> None:
    structure = {"timm/a": TRACED, "timm/b": _pruned_nothing("b"), "timm/c": _pruned_nothing("c"), "timm/d": TRACED}
    text = report(["timm/a", "timm/b", "timm/c", "timm/d", "timm/e"], structure, {"timm/a": DONE})
    for row in ("| passed | 1 |", "| refused with a reason | 2 |", "| traced only | 1 |", "| not tried | 1 |"):
        assert row in text
    assert "| position '…': expected channels that can be pruned behind it, found none | 2 | b, c |" in text
    assert text.count("\na.\n") == text.count("\nd.\n") == text.count("\ne.\n") == 1


@pytest.mark.parametrize(
    ("name", "size", "problem"),
    [
        ("timm/test_efficientnet", 64, ""),
        ("timm/test_vit", 64, ""),
        ("timm/gemma4_vit_167m", 0, "NetworkError: network: expected one torch.fx can trace"),
    ],
)
def test_the_structure_of_an_architecture_is_found_without_weights(name: str, size: int, problem: str) -> None:
    record = examine_structure(name)
    assert (record.architecture, record.size) == (name, size)
    assert record.problem.startswith(problem)
    assert bool(record.problem) == bool(problem)
    assert (record.positions > 3) == (not problem)
    assert (record.groups > 0) == (not problem)
