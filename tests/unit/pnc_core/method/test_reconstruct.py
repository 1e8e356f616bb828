"""Parallel adapters in closed form reduce the error of a cut tail, also on held-out images."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pnc_core.config import CloneConfig, Position
from pnc_core.images import ImageSet
from pnc_core.method import reconstruct
from pnc_core.method.heads.inputs import outputs_of_all
from pnc_core.method.insert import Insertion, stitch
from pnc_core.method.job import Job
from pnc_core.method.reconstruct import LogitsFit, reconstruct_layers, reconstruct_logits
from pnc_core.module.parallel_adapter import ParallelAdapter
from pnc_core.module.tail import extract
from tests.unit.pnc_core import nets

START = Position(target="input", source="input")
FAMILIES = [("resnet20", 16), ("vgg", 16), ("mobilenetv2", 16), ("torchvision/swin_t", 32)]


def _job(architecture: str, size: int) -> Job:
    """A random source, and noise images, each with a random mean colour."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (160, 3, size, size), generator=generator, dtype=torch.uint8)
    images = ImageSet(pixels // 2 + pixels[:, :, :1, :1] // 2, torch.arange(160) % 6, tuple("abcdef"))
    target = nets.network("cnn", size, classes="abc", width=4)
    options = {} if "/" in architecture else {"width": 8}
    source = nets.network(architecture, size, classes="def", **options)
    return nets.job(target, source, images, CloneConfig(classes=("d", "e"), batch_size=32))


def _cut(job: Job) -> tuple[Insertion, Insertion]:
    """The uncut insertion, and the insertion with half of the channels of every group."""
    whole = stitch(job, START, job.train)
    return whole, replace(whole, tail=extract(whole.tail, nets.some_channels(whole.tail)))


def _error(job: Job, whole: Insertion, cut: Insertion) -> float:
    """Mean squared error of the last tap's kept channels on held-out images, over their variance in the uncut tail."""
    batch = next(job.read(job.validation))
    with torch.no_grad():
        wanted, got = (one.forward(batch)[1][-1] for one in (whole, cut))
    if (group := cut.tail.tap_groups[-1]) is not None:
        wanted = wanted.index_select(cut.tail.tap_axes[-1], cut.tail.kept[group])
    return float((wanted - got).square().mean() / wanted.var())


@pytest.mark.parametrize(("architecture", "size"), FAMILIES)
def test_a_cut_tail_is_drawn_back_to_the_uncut_one_on_images_it_has_not_seen(architecture: str, size: int) -> None:
    job = _job(architecture, size)
    whole, cut = _cut(job)
    before = _error(job, whole, cut)
    reconstructed = reconstruct_layers(job, cut, whole.tail, job.train)
    assert reconstructed.tail.inner
    assert _error(job, whole, reconstructed) < 0.8 * before


@pytest.mark.parametrize(("architecture", "size"), FAMILIES[:3])
def test_outputs_for_all_images_reconstruct_the_logits_as_a_pass_of_their_own_does(
    architecture: str, size: int
) -> None:
    job = _job(architecture, size)
    alone = reconstruct_logits(job, _cut(job)[1])
    assert job.held is not None
    with LogitsFit(_cut(job)[1]) as fit:
        (outputs,) = outputs_of_all(job, [(fit.insertion, (1,))], job.every)
    shared = fit.fitted(outputs.own, outputs.every[:, list(job.cloned)], ~job.held)
    assert fit.adapter is not None
    batch = next(job.read(job.every))
    with torch.no_grad():
        wanted, again, before = (one.forward(batch)[0] for one in (alone, fit.insertion, _cut(job)[1]))
    scale = float(wanted.abs().max())
    assert torch.allclose(again, wanted, atol=1e-3 * scale)
    assert torch.allclose(shared[: len(again)], again, atol=1e-4 * scale)
    assert not torch.allclose(before, wanted, atol=1e-2 * scale)


def test_logits_that_no_linear_layer_makes_stay_as_they_are() -> None:
    cut = _cut(_job("torchvision/squeezenet1_1", 64))[1]
    with LogitsFit(cut) as fit:
        own = torch.randn(4, 2)
        assert fit.fitted(own, own + 1, torch.ones(4, dtype=torch.bool)) is own
    assert fit.insertion is cut


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (4, 2, 3, 6)])
def test_rows_stay_what_they_were_whatever_is_done_in_place_afterwards(shape: tuple[int, ...]) -> None:
    answer = torch.randn(shape)
    rows, before = reconstruct._rows(nn.Linear(3, 6), answer), answer.clone()
    answer.relu_()
    assert torch.equal(rows, before.reshape(-1, 6))


def test_large_activations_use_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job("resnet20", 16)
    whole, cut = _cut(job)
    monkeypatch.setattr(reconstruct, "LAYER_NUMBERS", 7 * 3 * 16 * 16)
    seen: list[int] = []
    with whole.tail.part.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]))):
        reconstruct_layers(job, cut, whole.tail, job.train)
    assert seen == [7]


def _rows(count: int, width: int) -> Tensor:
    """Correlated random rows with a mean other than 0."""
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(width, width, generator=generator) @ torch.randn(count, width, generator=generator).T
    return mixed.T + torch.arange(width)


def test_a_whole_map_becomes_what_it_is_told() -> None:
    adapter, rows = ParallelAdapter(nn.Conv2d(5, 3, 3, 2, 1), full_rank=True), _rows(50, 5)
    weight, bias = torch.randn(3, 5), torch.randn(3)
    adapter.approximate(weight, bias, rows)
    x = torch.randn(2, 5, 6, 6)
    wanted = torch.einsum("oi,nihw->nohw", weight, adapter.reads(x)) + bias[:, None, None]
    assert torch.allclose(adapter(x), wanted, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_limited_map_is_the_best_of_its_rank(rank: int) -> None:
    """Eckart-Young theorem: the error consists of the smallest singular values of the centred outputs."""
    layer = nn.Linear(48, 48)
    adapter, rows = ParallelAdapter(layer, full_rank=False), _rows(200, 48)
    assert adapter.down is not None
    assert len(adapter.down) == 3
    adapter.down, adapter.up = nn.Parameter(adapter.down[:rank]), nn.Parameter(adapter.up[:, :rank])
    weight, bias = torch.randn(48, 48, generator=torch.Generator().manual_seed(2)), torch.arange(48.0)
    adapter.approximate(weight, bias, rows)
    wanted = rows @ weight.T + bias
    with torch.no_grad():
        left = (adapter(rows) - wanted).square().sum()
    singular = torch.linalg.svdvals((wanted - wanted.mean(0)).double())
    assert float(left) == pytest.approx(float(singular[rank:].square().sum()), rel=1e-3)
