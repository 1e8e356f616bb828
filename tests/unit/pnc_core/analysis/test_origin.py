import copy
import sys

import pytest
import torch
from torch import Tensor, nn

from pnc_core.analysis.origin import FOUND, Origin, origin
from pnc_core.errors import ConfigError, DataError
from pnc_core.images import preprocess
from pnc_core.module.bundle import MODULE_PREFIX, Bundle
from tests.unit.pnc_core.conftest import Pair

State = dict[str, Tensor]


def _slices(bundle: Bundle) -> State:
    return {n.removeprefix(MODULE_PREFIX): t for n, t in bundle.tensors.items() if n.startswith(MODULE_PREFIX)}


def _disguised(network: nn.Module, seed: int = 0) -> nn.Module:
    """A network with the same logits: permuted channels, rescaled rows with changed signs, rescaled columns."""
    made = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    layers = [*made.blocks, made.fc]
    for block, after in zip(layers, [b[0] for b in layers[1:-1]] + [made.fc], strict=False):
        conv, norm = block[0], block[1]
        order = torch.randperm(conv.out_channels, generator=generator)
        row, passed = (torch.exp(torch.randn(len(order), generator=generator)) for _ in range(2))
        row *= torch.randint(0, 2, row.shape, generator=generator) * 2 - 1
        conv.weight.data = conv.weight.data[order] * row[:, None, None, None]
        norm.running_mean, norm.running_var = norm.running_mean[order] * row, norm.running_var[order] * row.square()
        norm.weight.data, norm.bias.data = norm.weight.data[order] * row.sign() * passed, norm.bias.data[order] * passed
        shape = (1, -1, 1, 1) if after.weight.ndim == 4 else (1, -1)
        after.weight.data = after.weight.data[:, order] / passed.reshape(shape)
    return made


def _noisy(state: State, share: float) -> State:
    """Add noise to kernels and matrices; its standard deviation is this share of theirs."""
    generator = torch.Generator().manual_seed(0)
    return {
        n: t + share * t.std() * torch.randn(t.shape, generator=generator) if t.ndim > 1 else t
        for n, t in state.items()
    }


def _rows(found: Origin) -> dict[str, list[int | None]]:
    return {layer.layer.removesuffix(".weight"): list(layer.rows) for layer in found.layers}


def test_a_module_s_slices_are_found_channel_by_channel(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    bundle = by_hand["router"]
    found = origin(_slices(bundle), pair.source[0].state_dict())
    assert found.found
    assert found.p_value < 1e-9
    assert [layer.layer for layer in found.layers] == ["blocks.2.0.weight", "blocks.3.0.weight"]
    kept = {n.removeprefix("kept."): t.tolist() for n, t in bundle.tensors.items() if n.startswith("kept.")}
    assert _rows(found) == kept
    assert all(layer.similarity > 0.999 for layer in found.layers)


def test_order_size_and_sign_of_channels_hide_nothing(pair: Pair) -> None:
    network, spec = pair.source
    hidden = _disguised(network)
    x = preprocess(pair.test.images[:50], spec)
    with torch.no_grad():
        assert torch.allclose(hidden(x), network(x), atol=0.05)
    assert not torch.allclose(hidden.blocks[2][0].weight, network.blocks[2][0].weight, atol=0.1)
    found = origin(hidden.state_dict(), network.state_dict())
    assert found.p_value < 1e-9
    assert found.matched / found.channels > 0.9


def test_another_name_hides_nothing(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    renamed = {f"net.{n}": t for n, t in _slices(by_hand["router"]).items()}
    found = origin(renamed, pair.source[0].state_dict())
    assert found.p_value < 1e-9
    assert [layer.source_layer for layer in found.layers] == ["blocks.2.0.weight", "blocks.3.0.weight"]


def test_names_that_were_swapped_are_seen_through_if_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    source = {name: torch.randn(16, 12, 3, 3, generator=generator) for name in "ab"}
    swapped = {"a": source["b"], "b": source["a"]}
    assert not origin(swapped, source).found
    found = origin(swapped, source, any_layer=True)
    assert found.found
    assert [layer.source_layer for layer in found.layers] == ["b", "a"]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_noise_and_half_precision_hide_nothing(pair: Pair, by_hand: dict[str, Bundle], share: float) -> None:
    noisy = {n: t.half() if t.is_floating_point() else t for n, t in _noisy(_slices(by_hand["router"]), share).items()}
    found = origin(noisy, pair.source[0].state_dict())
    assert found.p_value < 1e-6
    assert found.matched >= 0.5 * found.channels


def test_networks_that_began_elsewhere_have_nothing_of_the_source(pair: Pair, strangers: list[nn.Module]) -> None:
    for stranger in strangers:
        found = origin(stranger.state_dict(), pair.source[0].state_dict())
        assert not found.found
        assert found.matched == 0


def test_p_values_of_strangers_lie_anywhere_between_0_and_1(pair: Pair, strangers: list[nn.Module]) -> None:
    layers = origin(strangers[0].state_dict(), strangers[1].state_dict()).layers
    assert len(layers) == 4
    assert min(layer.p_value for layer in layers) > FOUND
    assert max(layer.p_value for layer in layers) > 0.05


def test_matrices_without_kernels_are_matched_by_the_order_that_others_hand_on() -> None:
    generator = torch.Generator().manual_seed(0)
    source = {"a": torch.randn(24, 8, 3, 3, generator=generator), "b": torch.randn(40, 24, generator=generator)}
    rows, outputs = (torch.randperm(width, generator=generator)[: width // 2] for width in (24, 40))
    suspect = {"a": source["a"][rows], "b": source["b"][outputs][:, rows]}
    found = origin(suspect, source)
    assert _rows(found) == {"a": rows.tolist(), "b": outputs.tolist()}
    assert max(layer.p_value for layer in found.layers) < 1e-6


def test_equal_seeds_give_equal_answers(pair: Pair, by_hand: dict[str, Bundle]) -> None:
    slices, source = _slices(by_hand["affine"]), pair.source[0].state_dict()
    assert origin(slices, source, seed=5) == origin(slices, source, seed=5)


def test_networks_without_a_layer_in_common_are_refused() -> None:
    with pytest.raises(DataError, match="got 1 layers beside the source's 1"):
        origin({"a": torch.zeros(8, 8, 5, 5)}, {"b": torch.zeros(8, 8, 3, 3)})
    with pytest.raises(DataError, match="'a': expected finite"):
        origin({"a": torch.full((8, 8), torch.nan)}, {"a": torch.zeros(8, 8)})


def test_layers_of_zeros_are_nobody_s() -> None:
    zeros = {"a": torch.zeros(8, 8, 3, 3)}
    assert not origin(zeros, zeros).found


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    weights = {"a": torch.ones(8, 8)}
    with pytest.raises(ConfigError, match=r"pnc-zoo\[origin\]"):
        origin(weights, weights)
