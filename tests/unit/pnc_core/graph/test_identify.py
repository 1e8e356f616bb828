"""The architecture of a file is found by names first, then by shapes; several that differ are all named."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pnc_core.graph.architectures import build_network
from pnc_core.graph.candidates import Candidate, Facts, built_in, torchvision
from pnc_core.graph.identify import Fit, Identified, Near, compare, identify
from pnc_core.networks.published import PUBLISHED, Published
from tests.unit.pnc_core import nets

Shapes = dict[str, tuple[int, ...]]


def shapes(name: str, classes: int = 10, size: int = 32, **options: Any) -> Shapes:
    spec = nets.spec(name, size, classes=[str(i) for i in range(classes)], **options)
    return {n: tuple(t.shape) for n, t in build_network(spec, device="meta").state_dict().items()}


def as_published(entry: Published, **options: Any) -> Shapes:
    classes = next(iter(entry.pixels), 10)
    own = shapes(entry.architectures[0], classes, **{**entry.options, **options})
    return {entry.name(name): shape for name, shape in own.items()}


def found(file: Shapes, ordered: bool = True, **more: Any) -> Identified:
    return identify(file if ordered else dict(sorted(file.items())), ordered=ordered, **more)


AMBIGUOUS = [
    entry for entry in PUBLISHED if "cifar/resnet18" in entry.architectures and "downsample" in str(entry.names)
]


ENTRIES = [(entry, among) for entry in PUBLISHED if entry not in AMBIGUOUS for among in ("its family", "all")]


def _is_quick(entry: Published, among: str) -> bool:
    """For each number of classes and width of the first layer all networks are built anew, which takes seconds."""
    facts = Facts(as_published(entry), ordered=True)
    return among != "all" or (facts.classes, facts.stem[0]) in ((10, 16), (10, 64))


def _family(architecture: str) -> str:
    return re.sub(r"[\d.]+.*", "", architecture)


@pytest.mark.parametrize("ordered", [True, False], ids=["in order", "sorted"])
@pytest.mark.parametrize(
    ("entry", "among"),
    [
        pytest.param(
            *case,
            id=f"{case[0].origin} {case[0].architectures[0]} among {case[1]}",
            marks=() if _is_quick(*case) else pytest.mark.slow,
        )
        for case in ENTRIES
    ],
)
def test_a_network_of_a_repository_is_found_by_its_names(
    entry: Published, among: str, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if among == "its family":
        kept = {_family(name) for name in entry.architectures}
        monkeypatch.setattr(
            "pnc_core.graph.identify.built_in", lambda f: (c for c in built_in(f) if _family(c.architecture) in kept)
        )
    file = as_published(entry)
    fit = found(file, ordered).chosen
    assert fit is not None
    assert (fit.architecture, fit.how) == (entry.architectures[0], "names")
    assert fit.published is not None
    assert fit.published.origin == entry.origin
    assert shapes(fit.architecture, next(iter(entry.pixels), 10), **fit.options) == {
        fit.key_map[name]: shape for name, shape in file.items()
    }


def test_names_of_two_networks_that_compute_different_logits_choose_neither() -> None:
    assert len(AMBIGUOUS) == 2
    result = found(as_published(AMBIGUOUS[0]))
    assert result.chosen is None
    assert [fit.options for fit in result.fits[:2]] == [{"stem_pool": True}, {}]


SIZES: list[tuple[str, dict[str, Any]]] = [
    ("cifar/resnet20", {"width": 12}), ("cifar/wrn16", {"widen": 3}), ("cifar/vgg11", {"width": 32}),
    ("cifar/densenet121", {"growth": 12, "newest_first": True}), ("cifar/mobilenetv2", {"width": 1.4}),
    ("cifar/vgg13", {"hidden": 100}), ("resnet20", {"width": 8}), ("cnn", {"width": 5}), ("vgg", {"width": 6}),
    ("mobilenetv2", {"width": 24}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), SIZES)
def test_options_of_size_are_read_off_the_tensors(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pnc_core.graph.identify.built_in",
        lambda f: (c for c in built_in(f) if _family(c.architecture.rpartition("/")[2]) in name),
    )
    _check_size(name, options)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), SIZES)
def test_options_of_size_are_read_off_the_tensors_among_all(name: str, options: dict[str, Any]) -> None:
    _check_size(name, options)


def _check_size(name: str, options: dict[str, Any]) -> None:
    fit = found(shapes(name, **options)).chosen
    assert fit is not None
    assert (fit.architecture, fit.options, fit.renamed) == (name, options, {})


def _strange(file: Shapes) -> Shapes:
    return {f"part{i:03}.{name.rpartition('.')[2]}": shape for i, (name, shape) in enumerate(file.items())}


def test_unknown_names_are_matched_by_order_and_all_fits_are_named() -> None:
    file = {n.replace("layer", "stage"): s for n, s in shapes("cifar/resnet20").items()}
    result = found(file)
    assert {(fit.architecture, fit.how) for fit in result.fits} == {("cifar/resnet20", "order"), ("resnet20", "order")}
    assert result.chosen is None
    only = found(_strange(shapes("cifar/shufflenetv2-x0.5"))).chosen
    assert only is not None
    assert (only.architecture, only.how) == ("cifar/shufflenetv2-x0.5", "order")


@pytest.mark.parametrize("among", ["residual networks", pytest.param("all", marks=pytest.mark.slow)])
def test_a_network_of_torchvision_is_found_by_its_names(among: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if among != "all":
        for group, given in (("built_in", built_in), ("torchvision", torchvision)):
            monkeypatch.setattr(f"pnc_core.graph.identify.{group}", _residual(given))
    fit = found(shapes("torchvision/resnet18", size=64), ordered=False).chosen
    assert fit is not None
    assert (fit.architecture, fit.options, fit.how, fit.renamed) == ("torchvision/resnet18", {}, "names", {})


def _residual(group: Callable[[Facts], Iterator[Candidate]]) -> Callable[[Facts], Iterator[Candidate]]:
    """The networks of a group that are called resnet and a number below 99."""
    return lambda facts: (c for c in group(facts) if re.fullmatch(r"(\w+/)?resnet\d\d", c.architecture))


def test_a_noted_network_of_timm_is_found() -> None:
    fit = found(shapes("timm/resnet10t", size=64), noted="resnet10t").chosen
    assert fit is not None
    assert (fit.architecture, fit.how) == ("timm/resnet10t", "names")


@pytest.mark.parametrize(
    ("change", "missing", "unexpected", "other"),
    [
        (lambda s: {n: v for n, v in s.items() if n != "linear.bias"}, ["linear.bias"], [], []),
        (lambda s: {**s, "extra.weight": (3, 3)}, [], ["extra.weight"], []),
        (
            lambda s: {**s, "layer2.1.bn1.bias": (31,)},
            [], [], ["layer2.1.bn1.bias: expected [32], got [31]"],
        ),
    ],
)  # fmt: skip
def test_without_a_fit_the_nearest_says_the_differences(
    change: Callable[[Shapes], Shapes], missing: list[str], unexpected: list[str], other: list[str]
) -> None:
    file = change(shapes("cifar/resnet20"))
    near = compare(nets.spec("cifar/resnet20", classes=[str(i) for i in range(10)]), file, ordered=True)
    assert isinstance(near, Near)
    assert ([*near.missing], [*near.unexpected], [*near.other]) == (missing, unexpected, other)
    assert 0.95 < near.likeness < 1


@pytest.mark.slow
def test_a_file_of_no_known_network_gets_the_nearest_three() -> None:
    result = found({**shapes("cifar/resnet32"), "layer9.0.weight": (3, 3)})
    assert (result.fits, result.chosen) == ((), None)
    assert result.near[0].likeness > 0.9
    assert len(result.near) == 3


def test_one_architecture_is_compared_under_its_names_and_its_repositories() -> None:
    entry = next(e for e in PUBLISHED if e.origin.startswith("weiaicunzai"))
    spec = nets.spec("cifar/resnet18", classes=[str(i) for i in range(100)])
    fit = compare(spec, as_published(entry), ordered=False)
    assert isinstance(fit, Fit)
    assert fit.renamed["conv2_x.0.residual_function.3.weight"] == "layer1.0.conv2.weight"


@pytest.mark.parametrize(
    ("file", "ordered", "classes", "channels"),
    [
        ({"a.weight": (8, 1, 3, 3), "b.weight": (7, 8)}, True, 7, 1),
        ({"fc.weight": (5, 8), "z.weight": (8, 3, 3, 3), "zz.weight": (9, 9)}, False, 5, 3),
        ({"a.weight": (8, 3, 3, 3), "classifier.1.weight": (6, 8, 1, 1)}, False, 6, 3),
        ({"a.weight": (8, 3, 3, 3), "b.weight": (6, 8, 1, 1)}, True, 6, 3),
        ({"a.bias": (3,)}, True, 0, 3),
        ({}, True, 0, 3),
    ],
)
def test_classes_and_channels_are_read_off_the_tensors(
    file: Shapes, ordered: bool, classes: int, channels: int
) -> None:
    facts = Facts(file, ordered)
    assert (facts.classes, facts.channels) == (classes, channels)


@pytest.mark.parametrize("among", ["residual networks", pytest.param("all", marks=pytest.mark.slow)])
def test_a_file_without_tensors_fits_nothing(among: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if among != "all":
        monkeypatch.setattr("pnc_core.graph.identify.built_in", _residual(built_in))
    result = identify({}, ordered=True, noted="none")
    assert (result.fits, result.chosen) == ((), None)
