import json
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.comparison.data import load
from benchmarks.curves import GRID, Row, _own_figures, _read_tuned, _todo, _write_tuned, drawn

ROW = Row("digits", 1000, 5, 0, "lwf", 0.5, 0.5, 0.5, 1.0, 1.0, "0.1 0.0005 1")


def test_a_draw_has_equally_many_images_of_each_class_and_all_for_zero() -> None:
    split = load("digits", None, 1000)
    first, other = drawn(split, 5, 0), drawn(split, 5, 1)
    assert torch.bincount(first.labels).tolist() == [5] * 10
    assert first.classes == (*split.target, *split.cloned)
    assert torch.equal(first.images, drawn(split, 5, 0).images)
    assert not torch.equal(first.images, other.images)
    assert len(drawn(split, 0, 0)) == len(split.train)


def test_tuning_tries_the_grid_and_keeps_the_best_setting_of_each_count(tmp_path: Path) -> None:
    tried = list(_todo(["lwf", "finetune", "probe"], None, tune=True))
    assert [setting for method, setting in tried if method == "lwf"] == list(GRID)
    assert len([1 for method, _ in tried if method == "finetune"]) == 10
    better = replace(ROW, setting="0.2 0.0005 1", average=0.6)
    _write_tuned(
        [ROW, replace(ROW, draw=1, average=0.9), better, replace(better, draw=1, average=0.9)], tmp_path, "digits"
    )
    assert json.loads((tmp_path / "tuned.json").read_text())["digits"] == {"5": {"lwf": [0.2, 0.0005, 1.0]}}
    tuned = _read_tuned(tmp_path, "digits")["5"]
    assert list(_todo(["lwf", "probe"], tuned, tune=False)) == [("lwf", [0.2, 0.0005, 1.0]), ("probe", None)]


def test_own_figures_are_compared_with_the_test_images() -> None:
    module = replace(ROW, method="module_fast", average=0.70, judged=0.72, low=0.6, high=0.8)
    outside = replace(module, draw=1, judged=0.9, low=0.8, high=0.95)
    assert _own_figures([module, outside, ROW]).splitlines()[-1] == "| 5 | 2 | +11.0 | 50% |"
