"""The demo's job over seeds and settings, without the service."""

import json
from pathlib import Path

import pytest

from app import demo
from benchmarks import demo as benchmark
from pnc_core.config import CloneConfig, Position

QUICK = CloneConfig(
    classes=demo.CLONED,
    preset="fast",
    views=1,
    max_size=0.5,
    position=Position(target="blocks.1", source="blocks.1"),
)


def test_a_seed_has_all_figures_that_promises_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "job_config", lambda seed: QUICK)
    monkeypatch.setattr(demo, "TRAIN_EPOCHS", 4)
    found = benchmark.measure(3)
    assert json.loads(json.dumps(found)) == found
    assert found["restored"] is True
    assert found["thin_is_full"] is True
    assert found["local_logit_difference"] == 0
    assert found["local_avg"] == found["composed_avg"]
    assert 0 < found["thin_bytes"] < found["full_bytes"] < found["source_bytes"]
    assert not any("bit for bit" in promise for promise in found["broken"])


def test_runs_that_are_there_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(benchmark, "measure", lambda seed: asked.append(seed) or {"seed": seed, "broken": []})
    monkeypatch.setattr(benchmark.torch, "set_num_threads", lambda count: None)
    out = tmp_path / "demo.jsonl"
    for seeds, threads in (("0-2", 1), ("2,3", 1), ("3", 2)):
        benchmark._run(out, "avx2", threads, benchmark._numbers(seeds))
    assert asked == [0, 1, 2, 3, 3]
    rows = [(row["isa"], row["threads"], row["seed"]) for row in benchmark._rows(out)]
    assert rows == [("avx2", 1, 0), ("avx2", 1, 1), ("avx2", 1, 2), ("avx2", 1, 3), ("avx2", 2, 3)]


def test_a_broken_promise_ends_the_command_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {name: 0.8 for fields in benchmark.METHODS.values() for name in fields}
    row = {"isa": "unset", "threads": 1, "target_old": 0.9, **figures}
    rows = [row | {"seed": seed, "broken": ["a promise"] * seed} for seed in (0, 1)]
    monkeypatch.setattr(benchmark, "_start", lambda *_: None)
    for count, code in ((1, 0), (2, 1)):
        out = tmp_path / f"{count}.jsonl"
        out.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
        with pytest.raises(SystemExit) as ended:
            benchmark.main(out, seeds="0-1", threads="1", isa="unset", only="")
        assert ended.value.code == code
