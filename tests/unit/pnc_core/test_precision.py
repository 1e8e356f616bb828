"""Closed forms use float32 or float64 inside autocast, and `auto` is the faster precision of the device."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core import devices
from pnc_core.analysis.residue import _recognised
from pnc_core.config import CloneConfig
from pnc_core.devices import SlowPrecision, device_of, full_precision, has_bfloat16, precision_of
from pnc_core.errors import ConfigError
from pnc_core.method.balance import Rows, fit_balance
from pnc_core.method.checkpoints import FolderCheckpoints
from pnc_core.method.clone import clone
from pnc_core.method.heads.fit import HeadInputs, fit_head
from pnc_core.method.insert import localize, stitch
from pnc_core.method.lime import solution, surrogate
from pnc_core.method.reconstruct import reconstruct_layers, reconstruct_logits
from pnc_core.module.adapter import RidgeSums
from pnc_core.module.parallel_adapter import ParallelAdapter
from pnc_core.module.tail import Tail
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

EXACT = 2e-4
"""Largest error relative to the largest value: float32 gives at most 1e-5, bfloat16 at least 4e-3."""


@pytest.fixture
def rows() -> Tensor:
    return torch.randn(400, 48, generator=torch.Generator().manual_seed(0)) + 3


def _off(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted).abs().max() / wanted.abs().max())


def _limited(rows: Tensor) -> Tensor:
    """Output of an adapter of limited rank that was fitted in closed form."""
    generator = torch.Generator().manual_seed(1)
    adapter = ParallelAdapter(nn.Linear(48, 32), full_rank=False)
    weight, bias = torch.randn(32, 48, generator=generator), torch.randn(32, generator=generator)
    adapter.approximate(weight, bias, rows)
    assert adapter.down is not None
    return torch.cat([(adapter.up.double() @ adapter.down.double()).flatten(), adapter.bias.double()]).detach()


def _limited_exactly(rows: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(*s, generator=generator).double() for s in ((32, 48), (32,)))
    x = rows.double()
    answers = (x - x.mean(0)) @ weight.T
    _, directions = torch.linalg.eigh(answers.T @ answers)
    best = directions[:, -2:] @ directions[:, -2:].T @ weight
    return torch.cat([best.flatten(), bias + (weight - best) @ x.mean(0)])


def _ridge(rows: Tensor) -> Tensor:
    sums = RidgeSums(40, 8)
    sums.add(rows[:, :40], rows[:, 40:])
    return torch.cat([part.flatten() for part in sums.solve()])


def _ridge_exactly(rows: Tensor) -> Tensor:
    x = F.pad(rows[:, :40].double(), (0, 1), value=1.0)
    ridge = 1e-3 * (x.T @ x).diagonal()[:-1].mean()
    penalty = torch.diag(torch.cat([ridge.expand(40), torch.tensor([1e-9]).double()]))
    found = torch.linalg.solve(x.T @ x + penalty, x.T @ rows[:, 40:].double())
    return torch.cat([found[:-1].T.flatten(), found[-1]])


def _local(rows: Tensor) -> Tensor:
    return surrogate(rows[: 32 * 12, :5].reshape(12, 32, 5))


def _local_exactly(rows: Tensor) -> Tensor:
    return torch.einsum("cv,nvk->nck", solution().double(), rows[: 32 * 12, :5].reshape(12, 32, 5).double())


CLOSED = {
    "limited adapter": (_limited, _limited_exactly),
    "ridge": (_ridge, _ridge_exactly),
    "local surrogate": (_local, _local_exactly),
}


@pytest.mark.parametrize(("solve", "exactly"), CLOSED.values(), ids=CLOSED)
def test_a_closed_form_is_the_one_in_float64_inside_of_autocast(
    solve: Callable[[Tensor], Tensor], exactly: Callable[[Tensor], Tensor], rows: Tensor
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        got = solve(rows)
    assert _off(got, exactly(rows)) < EXACT


def _head(large: bool) -> Callable[[Tensor], Tensor]:
    def fit(rows: Tensor) -> Tensor:
        rows = rows.repeat(5, 1) if large else rows  # large fits are float32
        features = rows.repeat(1, 120) if large else rows
        head = fit_head("router", HeadInputs(rows[:, :3], rows[:, 3:5], features, torch.arange(len(rows)) % 5))
        return torch.cat([p.flatten() for p in head.parameters()])

    return fit


def _balance(rows: Tensor) -> Tensor:
    def join(old: Tensor, answers: list[tuple[Tensor | None, Tensor]]) -> Tensor:
        return torch.cat([old, *(own for _, own in answers)], dim=1)

    fitted, head = fit_balance(
        join, Rows(rows[:, :3].double(), [(None, rows[:, 3:5].double())], torch.arange(400) % 5, rows.repeat(1, 120))
    )
    assert head is not None
    return torch.cat([torch.tensor(fitted).flatten(), head.weight.flatten(), head.bias])


def _probe(rows: Tensor) -> Tensor:
    return _recognised(rows, torch.arange(400) % 4, 4).double()


@pytest.mark.parametrize(
    "fit", [_head(False), _head(True), _balance, _probe], ids=["head", "large", "balance", "probe"]
)
def test_a_fit_takes_no_notice_of_autocast(fit: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = fit(rows)
    assert torch.equal(inside, fit(rows))


@pytest.fixture(scope="module")
def world() -> tuple[nets.Network, nets.Network, nets.ImageSet]:
    target, source = nets.network("cnn", 16, classes="abc", width=16), nets.network("cnn", 16, classes="def", width=16)
    pixels = torch.randint(0, 256, (96, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return target, source, nets.ImageSet(pixels, torch.arange(96) % 6, tuple("abcdef"))


def _learned(tail: Tail) -> Tensor:
    """The maps U D and biases of the parallel adapters; unlike U and D they do not depend on signs."""
    maps = (a.up if a.down is None else a.up @ a.down for a in tail.inner.values())
    parts = [torch.cat([m.flatten(), a.bias]) for m, a in zip(maps, tail.inner.values(), strict=True)]
    return torch.cat(parts).detach()


def test_parallel_adapters_of_a_bfloat16_job_are_solved_in_float32(
    world: tuple[nets.Network, nets.Network, nets.ImageSet],
) -> None:
    config = CloneConfig(classes=("d", "e"), preset="fast", batch_size=32, keep=0.5)
    job = nets.job(*world, config)
    position = nets.Position(target="blocks.0", source="blocks.0")
    whole = stitch(job, position, world[2])
    found = []
    for precision in ("float32", "bfloat16"):
        here = replace(job, config=replace(config, precision=precision))
        cut_down = localize(job, whole)
        found.append(
            _learned(reconstruct_logits(here, reconstruct_layers(here, cut_down, whole.tail, here.train)).tail)
        )
    assert torch.equal(*found)


@pytest.mark.parametrize("quick", [True, False])
def test_auto_is_written_down_as_what_it_was(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path, quick: bool
) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: quick)
    config = CloneConfig(classes=("9",), preset="fast", precision="auto", shortlist=1, screen_images=64, views=1)
    first = clone(pair.target, pair.source, pair.images, config, checkpoints=FolderCheckpoints(tmp_path))
    assert first.manifest.config.precision == ("bfloat16" if quick else "float32")
    # A job that continues on another processor keeps its precision.
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: not quick)
    again = clone(pair.target, pair.source, pair.images, config, checkpoints=FolderCheckpoints(tmp_path))
    assert again.manifest.config.precision == first.manifest.config.precision


def test_who_asks_for_bfloat16_where_it_is_slow_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    config = CloneConfig(classes=("9",), preset="fast", precision="bfloat16", shortlist=1, screen_images=64, views=1)
    said: list[str] = []
    with pytest.warns(SlowPrecision, match="bfloat16 is slower than float32 here"):
        clone(pair.target, pair.source, pair.images, config, report=lambda progress: said.append(progress.message))
    assert any("auto chooses the faster precision" in message for message in said)


def test_float32_stays_the_default() -> None:
    assert CloneConfig(classes=("a",)).precision == "float32"
    assert precision_of("float32", "cpu") == "float32"


def test_onednn_held_back_counts_as_a_processor_without_bfloat16() -> None:
    code = "from pnc_core.devices import *; print(has_bfloat16('cpu'), precision_of('auto', 'cpu'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["False", "float32"]


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", "none"])
def test_a_processor_is_asked_for_its_instructions(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True, "avx2": True}, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert has_bfloat16("cpu") == (name != "none")


def test_cuda_is_chosen_by_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [device_of("auto"), device_of("cpu")] == ["cpu", "cpu"]
    with pytest.raises(ConfigError, match="device: expected one that torch can use, got 'cuda:1'"):
        device_of("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of("auto"), device_of("cuda:1")] == ["cuda", "cuda:1"]


def test_full_precision_ends_with_its_block() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with full_precision():
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")
