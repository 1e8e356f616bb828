"""Architectures of published CIFAR networks: parameters, formulas, and the whole method on the smallest of each."""

from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.survey.method import TOLERANCE, examine
from pnc_core.errors import ConfigError
from pnc_core.graph.architectures import architectures, build_network
from pnc_core.networks.plain import fused
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.networks import reference
from tests.unit.pnc_core.networks.reference import Formula

PUBLISHED: list[tuple[str, dict[str, Any], int, str]] = [
    ("resnet20", {}, 10, "0.27"), ("resnet32", {}, 10, "0.46"), ("resnet44", {}, 10, "0.66"),
    ("resnet56", {}, 10, "0.85"), ("resnet110", {}, 10, "1.7"), ("resnet1202", {}, 10, "19.4"),
    ("resnet20", {"shortcut": "conv"}, 100, "0.28"), ("resnet32", {"shortcut": "conv"}, 10, "0.47"),
    ("resnet44", {"shortcut": "conv"}, 100, "0.67"), ("resnet56", {"shortcut": "conv"}, 10, "0.86"),
    ("resnet18", {}, 10, "11.174"), ("resnet34", {}, 10, "21.282"), ("resnet50", {}, 10, "23.521"),
    ("resnet101", {}, 100, "42.7"), ("resnet152", {}, 100, "58.3"),
    ("vgg11", {"hidden": 512}, 10, "9.76"), ("vgg13", {"hidden": 512}, 10, "9.94"),
    ("vgg16", {"hidden": 512}, 10, "15.25"), ("vgg19", {"hidden": 512}, 100, "20.61"),
    ("vgg11", {"hidden": 4096}, 10, "28.150"), ("vgg16", {"hidden": 4096}, 10, "33.647"),
    ("mobilenetv2", {"width": 0.5}, 10, "0.70"), ("mobilenetv2", {"width": 0.75}, 100, "1.48"),
    ("mobilenetv2", {}, 10, "2.24"), ("mobilenetv2", {"width": 1.4}, 10, "4.33"),
    ("shufflenetv2-x0.5", {}, 10, "0.35"), ("shufflenetv2-x1.0", {}, 10, "1.26"),
    ("shufflenetv2-x1.5", {}, 100, "2.58"), ("shufflenetv2-x2.0", {}, 10, "5.37"),
    ("repvgg-a0", {}, 10, "7.84"), ("repvgg-a1", {}, 10, "12.82"), ("repvgg-a2", {}, 100, "26.94"),
    ("wrn28", {}, 10, "36.5"), ("wrn40", {"widen": 4}, 10, "8.9"), ("wrn16", {"widen": 8}, 10, "11.0"),
    ("wrn40", {"widen": 10, "bias": True, "shortcut_of": "input"}, 100, "55.9"),
    ("densenet121", {}, 10, "6.956"), ("densenet121", {"transition_relu": False}, 100, "7.0"),
    ("densenet-bc100", {}, 10, "0.8"), ("densenet-bc250", {}, 10, "15.3"), ("densenet-bc190", {}, 10, "25.6"),
]  # fmt: skip
"""Millions of parameters, as the papers and the repositories' first pages print them."""


def built(name: str, classes: int = 3, **options: Any) -> torch.nn.Module:
    spec = nets.spec(f"cifar/{name}", classes=[str(i) for i in range(classes)], **options)
    return build_network(spec, device="meta")


@pytest.mark.parametrize(("name", "options", "classes", "millions"), PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(
    name: str, options: dict[str, Any], classes: int, millions: str
) -> None:
    count = sum(p.numel() for p in built(name, classes, **options).parameters()) / 1e6
    unit = 10.0 ** -len(millions.partition(".")[2])
    assert abs(count - float(millions)) < 1.01 * unit  # some authors cut digits off, others round


def test_every_architecture_for_small_images_builds() -> None:
    names = [name.removeprefix("cifar/") for name in architectures() if name.startswith("cifar/")]
    assert len(names) >= 35
    for name in set(names) - {"resnet1202"}:
        assert all(t.is_meta for t in built(name).state_dict().values())


FORMULAS: list[tuple[str, dict[str, Any], Formula]] = [
    ("resnet20", {"width": 4}, partial(reference.residual, shortcut="pad-both")),
    ("resnet32", {"width": 8}, partial(reference.residual, shortcut="pad-both")),
    ("resnet20", {"width": 4, "shortcut": "pad-end"}, partial(reference.residual, shortcut="pad-end")),
    ("resnet20", {"width": 4, "shortcut": "pool"}, partial(reference.residual, shortcut="pool")),
    ("resnet20", {"width": 4, "shortcut": "conv"}, partial(reference.residual, shortcut="conv")),
    ("resnet18", {"width": 4}, partial(reference.residual, shortcut="conv")),
    ("resnet18", {"width": 4, "stem_pool": True}, partial(reference.residual, shortcut="conv", pool=True)),
    ("resnet50", {"width": 4}, partial(reference.residual, shortcut="conv")),
    ("preact-resnet18", {"width": 4}, partial(reference.preactivated, activated=True, late=False)),
    ("preact-resnet50", {"width": 4}, partial(reference.preactivated, activated=True, late=True)),
    (
        "preact-resnet50",
        {"width": 4, "bias": True, "stem_norm": True, "shortcut_of": "input", "stride_in": "conv1"},
        partial(reference.preactivated, activated=False, late=False, stem=True),
    ),
    ("wrn16", {"widen": 1, "width": 4}, partial(reference.preactivated, activated=True, late=False, final=True)),
    (
        "wrn16",
        {"widen": 2, "width": 4, "bias": True, "shortcut_of": "input", "stride_in": "conv2"},
        partial(reference.preactivated, activated=False, late=True, final=True),
    ),
    ("densenet121", {"growth": 4}, partial(reference.dense, newest_first=False, active=True)),
    ("densenet121", {"growth": 4, "newest_first": True}, partial(reference.dense, newest_first=True, active=True)),
    (
        "densenet-bc100",
        {"growth": 2, "transition_relu": False},
        partial(reference.dense, newest_first=False, active=False),
    ),
    ("repvgg-a0", {"width": 8}, reference.branches),
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize(("name", "options", "formula"), FORMULAS)
def test_the_logits_are_those_of_the_author_s_formula(name: str, options: dict[str, Any], formula: Formula) -> None:
    network, spec = nets.network(f"cifar/{name}", **options)
    x = nets.pictures(3, spec)
    logits, expected = network(x), formula(network.state_dict(), x)
    assert float((logits - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert float(expected.std()) > 0


@torch.no_grad()
def test_fused_blocks_compute_the_logits_of_their_branches() -> None:
    network, spec = nets.network("cifar/repvgg-a0", width=8)
    single = build_network(nets.spec("cifar/repvgg-a0", width=8, fused=True))
    single.load_state_dict(fused(network.state_dict()))
    x = nets.pictures(3, spec)
    assert torch.allclose(network(x), single(x), rtol=1e-4, atol=1e-4 * float(network(x).abs().max()))


@torch.no_grad()
def test_shortcuts_with_the_same_tensors_compute_other_logits() -> None:
    one, spec = nets.network("cifar/resnet20", width=4)
    for kind in ("pad-end", "pool"):
        two = build_network(nets.spec("cifar/resnet20", width=4, shortcut=kind))
        two.load_state_dict(one.state_dict())
        assert not torch.allclose(one(nets.pictures(2, spec)), two(nets.pictures(2, spec)), atol=1e-3)


@torch.no_grad()
def test_the_older_resnet20_pads_behind_the_channels_as_ever() -> None:
    older, spec = nets.network("resnet20", width=4)
    newer = build_network(nets.spec("cifar/resnet20", width=4, shortcut="pad-end"))
    newer.load_state_dict(dict(zip(newer.state_dict(), older.state_dict().values(), strict=True)))
    assert torch.allclose(older(nets.pictures(2, spec)), newer(nets.pictures(2, spec)), atol=1e-5)


SMALLEST: list[tuple[str, dict[str, Any]]] = [
    ("resnet20", {"width": 8}), ("resnet20", {"width": 8, "shortcut": "conv"}), ("resnet18", {"width": 8}),
    ("resnet50", {"width": 4}), ("preact-resnet18", {"width": 8}), ("wrn16", {"widen": 1, "width": 8}),
    ("vgg11", {"width": 8}), ("vgg11", {"width": 8, "hidden": 32}), ("repvgg-a0", {"width": 8, "fused": True}),
    ("densenet121", {"growth": 4}), ("mobilenetv2", {"width": 0.25}),
    ("mobilenetv2", {"width": 0.25, "shortcut": "conv"}), ("shufflenetv2-x0.5", {}),
    pytest.param("resnet20", {"width": 8, "shortcut": "pool"}, marks=pytest.mark.slow),
    pytest.param("preact-resnet50", {"width": 4, "bias": True, "stem_norm": True}, marks=pytest.mark.slow),
    pytest.param("densenet-bc100", {"growth": 4, "newest_first": True}, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), SMALLEST)
def test_the_smallest_of_each_is_cut_exactly_attached_and_taken_out_again(name: str, options: dict[str, Any]) -> None:
    record = examine(f"cifar/{name}", 32, **options)
    assert record.problem == ""
    assert record.max_difference < TOLERANCE
    assert record.restored
    assert record.prunable_share > 0.3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20", {"shortcut": "A"}), ("resnet20", {"shortcut": True}), ("resnet20", {"width": 0}),
        ("resnet20", {"depth": 20}), ("resnet18", {"stem_pool": 1}), ("wrn28", {"widen": 65}),
        ("wrn28", {"stride_in": "conv3"}), ("preact-resnet18", {"shortcut_of": "output"}), ("vgg11", {"hidden": -1}),
        ("densenet121", {"growth": 0}), ("densenet121", {"newest_first": "yes"}), ("mobilenetv2", {"width": 0}),
        ("mobilenetv2", {"width": True}), ("mobilenetv2", {"shortcut": "pad-both"}), ("repvgg-a0", {"fused": "yes"}),
        ("shufflenetv2-x0.5", {"width": 2}),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"options.*got"):
        built(name, **options)
