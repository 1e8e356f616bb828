import torch
from torch import nn

from pnc_core.data import preprocess
from pnc_core.memory import _expected, _Moments, remembered_moments
from pnc_core.positions import trace
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair


def test_what_norms_remember_is_near_what_they_see_on_the_target_s_own_images(pair: Pair) -> None:
    traced = trace(*pair.target)
    memory = remembered_moments(traced)
    assert memory is not None
    norms = [m for m in pair.target[0].modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(memory) == sum(2 * m.num_features for m in norms)
    reader = _Moments(traced)
    with torch.no_grad():
        reader.run(preprocess(pair.images.only(pair.target[1].classes).images, pair.target[1]))
    seen = torch.cat(reader.found, dim=1).mean(0)
    assert float(torch.corrcoef(torch.stack([memory, seen]))[0, 1]) > 0.95


def test_a_network_without_batch_norms_remembers_nothing() -> None:
    assert remembered_moments(trace(*nets.network("torchvision/vit_b_16", 32))) is None


def test_expected_taps_follow_a_linear_law() -> None:
    moments, law = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)), torch.randn(6, 3)
    found = _expected(moments, (moments @ law).double(), torch.full((6,), 0.5))
    assert torch.allclose(found.float(), 0.5 * law.sum(0), atol=0.1)
