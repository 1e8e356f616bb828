import dataclasses

import pytest
import torch
from torch.nn import functional

from pnc_core.errors import PositionError
from pnc_core.graph.positions import INPUT, PositionInfo
from pnc_core.images import preprocess
from pnc_core.module.adapter import Adapter, AdapterFit, RidgeSums, input_adapter, ridge_solutions
from pnc_core.preprocessing import ChannelOrder, Preprocessing
from tests.unit.pnc_core import nets


def _fit(target: PositionInfo, source: PositionInfo, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Adapter:
    fit = AdapterFit(target, source)
    for phi, wanted in pairs:
        fit.add(phi, wanted)
    return fit.adapter()


def _info(*shape: int, axis: int = 1, name: str = "layer", patches: tuple[int, int] | None = None) -> PositionInfo:
    return PositionInfo(name, name, shape, axis, 0.5, patches)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_ridge_recovers_a_planted_map() -> None:
    x, weight, bias = _random(500, 4), _random(3, 4, seed=1), _random(3, seed=2)
    sums = RidgeSums(4, 3)
    for part in x.split(128):
        sums.add(part, part @ weight.T + bias)
    found_weight, found_bias = sums.solve(1e-9)
    assert torch.allclose(found_weight, weight, atol=1e-5)
    assert torch.allclose(found_bias, bias, atol=1e-5)


def test_a_strong_ridge_shrinks_the_weights_but_not_the_bias() -> None:
    x = _random(500, 4)
    sums = RidgeSums(4, 1)
    sums.add(x, x[:, :1] + 5)
    weight, bias = sums.solve(1e6)
    assert float(weight.abs().max()) < 1e-5
    assert float(bias) == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("rows", [20, 60, 200])
def test_one_decomposition_gives_the_solutions_of_all_ridges(rows: int) -> None:
    x, ridges = _random(rows, 60) + 2, (1e-3, 1e-1, 10.0)
    y = x[:, :3] + _random(rows, 3, seed=1)
    sums = RidgeSums(60, 3)
    sums.add(x, y)
    for (weight, bias), ridge in zip(ridge_solutions(x, y, ridges), ridges, strict=True):
        wanted_weight, wanted_bias = sums.solve(ridge)
        assert torch.allclose(weight, wanted_weight, atol=1e-4)
        assert torch.allclose(bias, wanted_bias, atol=1e-4)


def test_channels_that_are_always_zero_do_no_harm() -> None:
    x = torch.cat([_random(100, 2), torch.zeros(100, 2)], dim=1)
    sums = RidgeSums(4, 1)
    sums.add(x, x[:, :1])
    weight, _ = sums.solve()
    assert torch.isfinite(weight).all()
    assert float(weight[0, 0]) == pytest.approx(1, abs=1e-2)


def test_the_adapter_between_two_maps_recovers_a_planted_map_on_the_source_s_grid() -> None:
    weight, bias = _random(5, 3, seed=1), _random(5, seed=2)
    planted = Adapter(_info(3, 8, 8), _info(5, 4, 4), relu=False)
    planted.weight.data, planted.bias.data = weight, bias
    pairs = [(phi, planted(phi).detach()) for phi in _random(40, 3, 8, 8).split(16)]
    found = _fit(_info(3, 8, 8), _info(5, 4, 4), pairs)
    assert not found.relu
    assert torch.allclose(found.weight, weight, atol=1e-2)
    assert torch.allclose(found.bias, bias, atol=1e-2)


@pytest.mark.parametrize(
    ("lowest", "name", "relu"), [(0.0, "layer", True), (-0.1, "layer", False), (0.0, INPUT, False)]
)
def test_a_source_activation_that_is_never_negative_gives_a_relu(lowest: float, name: str, relu: bool) -> None:
    wanted = _random(4, 5, 2, 2).clamp_min(lowest)
    adapter = _fit(_info(3, 2, 2), _info(5, 2, 2, name=name), [(_random(4, 3, 2, 2), wanted)])
    assert adapter.relu is relu
    assert (float(adapter(_random(9, 3, 2, 2)).detach().min()) >= 0) is relu


@pytest.mark.parametrize("grid", [(4, 4), (8, 8), (16, 16), (6, 10)])
def test_the_grid_is_resized_to_the_source_s(grid: tuple[int, int]) -> None:
    adapter = Adapter(_info(3, 8, 8), _info(3, *grid), relu=False)
    adapter.weight.data = torch.eye(3)
    assert adapter(_random(2, 3, 8, 8)).shape == (2, 3, *grid)
    assert torch.equal(adapter(torch.ones(2, 3, 8, 8)), torch.ones(2, 3, *grid))


def test_down_is_the_average_and_up_the_nearest_cell() -> None:
    phi = torch.arange(4.0).reshape(1, 1, 2, 2)
    down, up = Adapter(_info(1, 2, 2), _info(1, 1, 1), relu=False), Adapter(_info(1, 2, 2), _info(1, 4, 4), relu=False)
    down.weight.data = up.weight.data = torch.eye(1)
    assert down(phi).flatten().tolist() == [1.5]
    assert up(phi)[0, 0, 0].tolist() == [0, 0, 1, 1]


def test_channels_last_and_channels_first_meet() -> None:
    first, last = _info(3, 8, 8), _info(4, 4, 6, axis=3)
    assert Adapter(first, last, relu=False)(_random(2, 3, 8, 8)).shape == (2, 4, 4, 6)
    assert Adapter(last, first, relu=False)(_random(2, 4, 4, 6)).shape == (2, 3, 8, 8)
    same = Adapter(_info(8, 8, 3, axis=3), _info(8, 8, 3, axis=3), relu=False)
    same.weight.data = torch.eye(3)
    phi = _random(2, 8, 8, 3)
    assert torch.equal(same(phi), phi)


def test_tokens_meet_tokens() -> None:
    adapter = Adapter(_info(5, 3, axis=2), _info(5, 4, axis=2), relu=False)
    assert adapter(_random(2, 5, 3)).shape == (2, 5, 4)


def test_a_map_becomes_tokens_on_the_grid_of_their_patches() -> None:
    adapter = Adapter(_info(1, 4, 8), _info(8 + 2, 1, axis=2, patches=(2, 4)), relu=False)
    adapter.weight.data, adapter.leading_weight.data = torch.ones(1, 1), torch.tensor([[1.0], [-1.0]])
    phi = _random(3, 1, 4, 8)
    tokens = adapter(phi)
    assert tokens.shape == (3, 10, 1)
    assert torch.allclose(tokens[:, 0, 0], phi.mean((1, 2, 3)))
    assert torch.allclose(tokens[:, 1], -tokens[:, 0])
    assert torch.allclose(tokens[:, 2 + 4 + 1, 0], phi[:, 0, 2:4, 2:4].mean((1, 2)))


def test_tokens_become_a_map_and_leave_those_before_the_patches_out() -> None:
    adapter = Adapter(_info(5, 1, axis=2, patches=(2, 2)), _info(1, 4, 4), relu=False)
    adapter.weight.data = torch.ones(1, 1)
    assert adapter(torch.arange(5.0).reshape(1, 5, 1))[0, 0].tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2


def test_tokens_on_another_grid_make_their_leading_ones_of_leading_ones() -> None:
    weight, leading = _random(4, 3, seed=1), _random(4, 3, seed=2)
    target, source = _info(17, 3, axis=2, patches=(4, 4)), _info(5, 4, axis=2, patches=(2, 2))
    planted = Adapter(target, source, relu=False)
    planted.weight.data, planted.leading_weight.data = weight, leading
    phi = _random(200, 17, 3)
    found = _fit(target, source, [(phi, planted(phi).detach())])
    assert torch.allclose(found.weight, weight, atol=1e-2)
    assert torch.allclose(found.leading_weight, leading, atol=1e-2)
    assert torch.allclose(planted(phi)[:, 0], phi[:, 0] @ leading.T, atol=1e-5)


def test_equally_many_tokens_meet_one_by_one_wherever_their_patches_lie() -> None:
    info = _info(5, 3, axis=2, patches=(2, 2))
    assert set(Adapter(info, info, relu=False).state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("target", "source"), [(_info(3, 8, 8), _info(5, 4, axis=2)), (_info(5, 4, axis=2), _info(6, 4, axis=2))]
)
def test_shapes_that_cannot_meet_are_refused(target: PositionInfo, source: PositionInfo) -> None:
    with pytest.raises(PositionError, match=r"expected .+, got"):
        Adapter(target, source, relu=False)


def test_the_input_adapter_undoes_one_normalisation_and_applies_the_other() -> None:
    one = nets.spec("cnn", 8, 3)
    two = dataclasses.replace(one, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    adapter = input_adapter(_info(3, 8, 8, name=INPUT), _info(3, 8, 8, name=INPUT), (one, two))
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(adapter(preprocess(pixels, one)), preprocess(pixels, two), atol=1e-5)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_input_adapter_knows_channel_order_and_value_range(order: ChannelOrder) -> None:
    one = dataclasses.replace(nets.spec("cnn", 8, 3), preprocessing=Preprocessing(channel_order=order))
    caffe = Preprocessing(channel_order="bgr", value_range="0..255")
    two = dataclasses.replace(one, mean=(103.939, 116.779, 123.68), std=(1.0, 2.0, 3.0), preprocessing=caffe)
    adapter = input_adapter(_info(3, 8, 8, name=INPUT), _info(3, 8, 8, name=INPUT), (one, two))
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(adapter(preprocess(pixels, one)), preprocess(pixels, two), atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "size"), [((3, 3), (8, 12)), ((3, 3), (12, 8)), ((1, 3), (8, 12)), ((3, 1), (8, 8))]
)
def test_the_input_adapter_takes_the_source_s_own_image_where_the_networks_see_other_pixels(
    channels: tuple[int, int], size: tuple[int, int]
) -> None:
    one, two = (nets.spec("cnn", side, count) for side, count in zip(size, channels, strict=True))
    adapter = input_adapter(_info(*one.input_size, name=INPUT), _info(*two.input_size, name=INPUT), (one, two))
    image = torch.randn(4, *two.input_size)
    assert torch.equal(adapter(image), image)
    assert adapter.resize == "image"
    assert adapter.shape == two.input_size


def test_bundles_that_resize_the_target_s_pixels_are_run_as_before() -> None:
    adapter = Adapter(_info(3, 8, 8, name=INPUT), _info(3, 12, 12, name=INPUT), relu=False, resize="pixels")
    adapter.weight.data.copy_(torch.eye(3))
    x = torch.randn(4, 3, 8, 8)
    wanted = functional.interpolate(x, (12, 12), mode="bilinear", antialias=True)
    assert torch.allclose(adapter(x), wanted, atol=1e-6)
