import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import architectures
from benchmarks.architectures import markdown
from benchmarks.survey import method
from benchmarks.survey.method import TOLERANCE, Record, enliven, examine, masked_against_extracted
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import trace
from pnc_core.module.tail import Tail, extract, open_tail
from tests.unit.pnc_core import nets

FAMILIES = [
    ("cnn", 16), ("vgg", 32), ("resnet20", 32), ("torchvision/resnet18", 32), ("torchvision/squeezenet1_1", 48),
    ("torchvision/mobilenet_v2", 32), ("torchvision/mobilenet_v3_small", 32), ("torchvision/shufflenet_v2_x0_5", 32),
    ("torchvision/regnet_x_400mf", 32), ("torchvision/convnext_tiny", 32),
    ("timm/resnet10t", 32), ("timm/vit_tiny_patch16_224", 48),
    pytest.param("torchvision/mnasnet0_5", 32, marks=pytest.mark.slow),
    pytest.param("timm/mobilenetv3_small_050", 32, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_a_network_of_any_family_is_cut_exactly_attached_and_taken_out_again(name: str, size: int) -> None:
    record = examine(name, size)
    assert record.problem == ""
    assert record.max_difference < TOLERANCE
    assert record.restored
    assert 0.5 < record.prunable_share <= record.prunable_with_streams < 1
    assert record.passed


UNCUT = [("timm/convnextv2_atto", 64), pytest.param("timm/eca_nfnet_l0", 64, marks=pytest.mark.slow)]
STREAMS = [("timm/repvgg_a0", 64), pytest.param("timm/mobileone_s0", 64, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "size"), UNCUT)
def test_a_network_without_channels_to_cut_is_cloned_whole(name: str, size: int) -> None:
    record = examine(name, size)
    assert record.problem == ""
    assert (record.groups, record.prunable_share) == (0, 0)
    assert record.restored
    assert record.passed


@pytest.mark.parametrize(("name", "size"), STREAMS)
def test_a_network_whose_channels_are_streams_is_cut(name: str, size: int) -> None:
    record = examine(name, size)
    assert record.problem == ""
    assert record.groups > 0
    assert record.passed


def test_a_network_of_two_heads_is_cut() -> None:
    assert examine("timm/efficientvim_m1", 64).passed


def test_a_problem_is_recorded_with_what_was_found_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tail: Tail, activation: torch.Tensor) -> float:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(method, "masked_against_extracted", broken)
    record = examine("cnn", 16)
    assert record.problem == "RuntimeError: first line"
    assert (record.positions, record.groups, record.restored, record.passed) == (5, 2, False, False)


def test_a_mask_that_changes_nothing_is_noticed() -> None:
    network, spec = nets.network("cnn", 8, 1, width=8)
    network.fc.weight.data.zero_()
    with pytest.raises(ArithmeticError, match="expected other logits"):
        masked_against_extracted(open_tail(trace(network, spec), "blocks.0", [0, 1]), torch.randn(2, 8, 8, 8))


def test_an_extraction_of_other_channels_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, spec = nets.network("cnn", 8, 1, width=8)
    tail = open_tail(trace(network, spec), "blocks.0", [0, 1])
    phi = torch.randn(2, 8, 8, 8)
    assert masked_against_extracted(tail, phi) < TOLERANCE

    def shifted(tail: Tail, kept: dict[str, torch.Tensor]) -> Tail:
        return extract(tail, {g.name: ((kept[g.name] + 1) % g.width).sort().values for g in tail.groups})

    monkeypatch.setattr(method, "extract", shifted)
    assert masked_against_extracted(tail, phi) > 100 * TOLERANCE


def test_an_enlivened_network_has_no_constant_weights_and_norms_that_know_their_inputs() -> None:
    spec = nets.spec("torchvision/convnext_tiny", 32)
    network = enliven(build_network(spec), spec, 0).requires_grad_(False)
    assert all(p.numel() == 1 or float(p.max()) > float(p.min()) for p in network.parameters())
    assert min(float(p.abs().max()) for p in network.parameters()) > 0.01
    spec = nets.spec("resnet20", 16, width=4)
    network, seen = enliven(build_network(spec), spec, 0), []
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.register_forward_hook(lambda _, inputs, out: seen.append(float(out.detach().var())))
        assert not norm.training
    network(nets.pictures(8, spec))
    assert 0.4 < min(seen) <= max(seen) < 2.5


def _main(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str) -> list[str]:
    """The architectures that a run looked at."""
    done: list[str] = []

    def quick(name: str, size: int) -> Record:
        done.append(name)
        problem = "an accident" if name == "torchvision/vgg11" and len(done) < 90 else ""
        return Record(name, size, 1000, 5, "middle", 3, 0.5, 0.75, 1e-7, not problem, 1.0, problem)

    monkeypatch.setattr(architectures, "examine", quick)
    monkeypatch.setattr(sys, "argv", ["architectures", "--out", str(out), *arguments])
    architectures.main()
    return done


def test_a_run_goes_on_where_it_was_and_tries_problems_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _main(monkeypatch, tmp_path)
    assert len(first) == len(set(first)) >= 80
    assert "79 of 80 passed" in capsys.readouterr().out
    assert _main(monkeypatch, tmp_path) == ["torchvision/vgg11"]
    assert _main(monkeypatch, tmp_path, "--only", "cnn") == ["cnn"]
    records = json.loads((tmp_path / "results.json").read_text())
    assert len(records) == len(first) + 1
    assert "an accident" in (tmp_path / "table.md").read_text()


def test_the_table_has_one_row_a_record() -> None:
    rows = markdown([Record("b", 64, 2_500_000, 7, "x", 2, 0.25, 0.5, 3e-7, True, 2.4), Record("a", 32)]).splitlines()
    assert rows[3] == "| b | 64 | 2.5 M | 7 | 2 | 25% | 50% | 3e-07 | yes | 2 |"
    assert {row.count("|") for row in rows} == {11}
