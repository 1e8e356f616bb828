"""The benchmark of busy machines: its files and its environments."""

import os
from pathlib import Path

import pytest
import torch

import app.demo
from app.local.specs import given_spec
from app.process.resources import processors
from benchmarks import busy
from benchmarks.comparison.data import load
from pnc_core.graph.architectures import build_network


def test_clone_can_read_the_prepared_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    split = load("digits", None, 0)
    few = split.train.take(torch.arange(4))
    networks = [(build_network(split.spec(c)).eval(), split.spec(c)) for c in (split.target, split.source)]
    monkeypatch.setattr(app.demo, "prepare", lambda *_: app.demo.Material(*networks, few, few))
    busy.prepare(tmp_path)
    for name, (_, spec) in zip(("target", "source"), networks, strict=True):
        assert given_spec(tmp_path / f"{name}.json", {}, []) == spec
    assert (tmp_path / "images.parquet").stat().st_size > 0


def test_torch_s_own_threads_are_all_processors_and_spin() -> None:
    own, service = busy.environment("torch's own"), busy.environment("the service's")
    assert own[processors.THREADS] == str(os.cpu_count())
    assert own.items() >= busy.SPINNING.items()
    assert not {processors.THREADS, *busy.SPINNING} & service.keys()
