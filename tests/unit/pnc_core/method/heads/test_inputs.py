import pytest
import torch
from torch import Tensor, nn

from pnc_core.config import CloneConfig, Position
from pnc_core.images import ImageSet, preprocess
from pnc_core.method import job as job_module
from pnc_core.method.clone import clone
from pnc_core.method.heads import inputs
from pnc_core.method.heads.inputs import head_inputs, mean_by_image, outputs_of_all
from pnc_core.method.insert import localize, stitch, whole_source
from pnc_core.method.job import Job
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

MIDDLE = Position(target="blocks.1", source="blocks.1")


@pytest.fixture(scope="module")
def job(pair: Pair) -> Job:
    config = CloneConfig(classes=("9", "7"), batch_size=64, keep=0.4, views=2)
    return nets.job(pair.target, pair.source, pair.images, config)


def test_heads_see_the_images_and_then_their_views(job: Job) -> None:
    insertion = stitch(job, MIDDLE, job.train)
    one, two = head_inputs(job, insertion, job.validation, (1, 2), 2)
    count = len(job.validation)
    assert len(one.labels) == 3 * count
    assert torch.equal(one.labels[:count], job.validation.labels)
    assert torch.equal(one.old, two.old)
    # Taps of 8, 8, 16 and 32 channels of the target, of 16 and 32 of the module, on grids of 2x2 or more.
    assert (one.features.shape[1], two.features.shape[1]) == (2 * 112, (4 + 1) * 112)


@pytest.mark.parametrize(("most", "views"), [(1.0, 1), (2.9, 2), (0.3, 1), (9.0, 4)])
def test_where_images_are_many_each_has_fewer_views_whichever_part_is_held_out(
    job: Job, monkeypatch: pytest.MonkeyPatch, most: float, views: int
) -> None:
    insertion = stitch(job, MIDDLE, job.train)
    monkeypatch.setattr(inputs, "MAX_ROWS", int(most * (len(job.train) + len(job.validation))))
    for part in (job.train, job.validation):
        assert len(head_inputs(job, insertion, part, (1,), 4)[0].labels) == (1 + views) * len(part)


def test_the_views_of_an_image_are_found_again_among_the_rows(pair: Pair) -> None:
    config = CloneConfig(classes=("9", "7"), batch_size=16, augment="none")
    job = nets.job(pair.target, pair.source, pair.images, config)
    (rows,) = head_inputs(job, stitch(job, MIDDLE, job.train), job.validation, (1,), 2)
    assert len(rows.labels) == 3 * len(job.validation)
    for column in (
        rows.own[:, 0],
        rows.features[:, 1],
    ):  # the views equal their image, so every value appears three times
        found = mean_by_image(job, column, len(job.validation), 2)
        assert torch.allclose(found, column[: len(job.validation)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_whole", [False, True])
def test_one_pass_gives_both_networks_logits_and_every_module_s_rows(job: Job, pair: Pair, with_whole: bool) -> None:
    whole = whole_source(job)
    assert whole is not None
    modules = [localize(job, stitch(job, MIDDLE, job.train)), *([whole] if with_whole else [])]
    found = outputs_of_all(job, [(module, (1, 2)) for module in modules], job.every)
    for outputs, module in zip(found, modules, strict=True):
        for (network, spec), side in ((pair.target, outputs.old), (pair.source, outputs.every)):
            with torch.no_grad():
                wanted = network(preprocess(job.every.images, spec))
            assert torch.allclose(side, wanted, atol=1e-4)
        for grid, wanted_rows in zip((1, 2), head_inputs(job, module, job.every, (1, 2), 0), strict=True):
            for name, column in vars(wanted_rows).items():
                assert torch.allclose(getattr(outputs.rows[grid], name), column, atol=1e-4), name


def test_known_rows_are_not_read_again(job: Job) -> None:
    module = localize(job, stitch(job, MIDDLE, job.train))
    (outputs,) = outputs_of_all(job, [(module, (1,))], job.every)
    assert job.held is not None
    plain = outputs.take(job.held).rows
    (wanted,) = head_inputs(job, module, job.validation, (1,), 2)
    (found,) = head_inputs(job, module, job.validation, (1,), 2, plain)
    for name, column in vars(wanted).items():
        assert torch.allclose(getattr(found, name), column, atol=1e-4), name
    assert head_inputs(job, module, job.validation, (1,), 0, plain)[0] is plain[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fast_job_on_expensive_networks_costs_less_than_five_passes(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multiply-accumulates of all convolutions beside those of one pass of both networks over the images."""
    monkeypatch.setattr(job_module, "EXPENSIVE_MACS", 0)
    run, spent = nn.Conv2d._conv_forward, [0]

    def counted(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        made = run(self, x, weight, bias)
        spent[0] += made.numel() * weight[0].numel()
        return made

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", counted)
    target, source = (nets.network("resnet20", classes=classes) for classes in ("abcde", "fghij"))
    nets.randomised(target[0], seed)
    nets.randomised(source[0], seed + 1)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (210, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = ImageSet(pixels, torch.arange(210) % 7, tuple("abcdefg"))
    for network, made in (target, source):
        with torch.no_grad():
            network(preprocess(pixels, made))
    once, spent[0] = spent[0], 0
    clone(target, source, images, CloneConfig(classes=("f", "g"), preset="fast", keep_anyway=True))
    assert spent[0] < 4.5 * once
