from pathlib import Path

import pytest
import torch

from benchmarks.comparison.training import Recipe, fit
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.images import ImageSet
from tests.unit.pnc_core import nets

SPEC = nets.spec("cnn", 8, 1, "ab", width=4)
RECIPE = Recipe(4, batch=16, augment="shift", precision="float32")


class Stopped(Exception):
    pass


def _images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (96, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(96) % 2, SPEC.classes)


def _trained(spec: NetworkSpec, kept: Path | None, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    network, seen = build_network(spec).train(), 0

    def step(images: int) -> None:
        nonlocal seen
        seen += images
        if stop_after is not None and seen > stop_after:
            raise Stopped

    fit(network, spec, _images(), RECIPE, torch.Generator().manual_seed(2), step=step, checkpoint=kept)
    assert seen == RECIPE.epochs * 96
    return network.state_dict()


def test_training_that_was_stopped_goes_on_to_the_same_network(tmp_path: Path) -> None:
    whole, kept = _trained(SPEC, None), tmp_path / "net.training"
    for stop_after in (96 * 2 + 40, 96 * 3 + 10):  # in the third epoch, then in the fourth
        with pytest.raises(Stopped):
            _trained(SPEC, kept, stop_after)
        assert kept.is_file()
    went_on = _trained(SPEC, kept)
    assert all(torch.equal(whole[name], tensor) for name, tensor in went_on.items())
    assert not kept.exists()
