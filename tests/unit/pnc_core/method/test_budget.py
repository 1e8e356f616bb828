import pytest
import torch

from pnc_core.analysis.evaluation import multiply_accumulates
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import PositionError
from pnc_core.graph.cost import Cost, count_macs
from pnc_core.method.budget import HEAD_DIVISOR, TailCost, limits
from pnc_core.method.clone import clone
from pnc_core.method.insert import bounds_of, localize, stitch
from pnc_core.method.job import Progress
from pnc_core.method.search import screen
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach
from pnc_core.module.parallel_adapter import adaptable, readout
from pnc_core.module.tail import Tail, extract, with_parallel_adapters
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

MIDDLE = Position(target="blocks.1", source="blocks.1")
TAILS = [
    ("resnet20", 16, 2),
    ("vgg", 16, 1),
    ("torchvision/mobilenet_v2", 32, 2),
    ("torchvision/squeezenet1_1", 64, 2),
    ("torchvision/regnet_y_400mf", 32, 2),
    *(
        pytest.param(*row, marks=pytest.mark.slow)
        for row in (
            ("torchvision/shufflenet_v2_x0_5", 32, 2),
            ("torchvision/densenet121", 32, 4),
            ("torchvision/googlenet", 64, 4),
            ("torchvision/efficientnet_b0", 32, 3),
            ("torchvision/convnext_tiny", 32, 8),
            ("torchvision/swin_t", 64, 6),
            ("torchvision/vit_b_16", 32, 10),
        )
    ),
]
"""Architectures with chains, inverted residuals, channel shuffle, concatenation, grouped convolutions, attention."""


def _learned(tail: Tail) -> int:
    return sum(p.numel() for parts in tail.learned.values() for part in parts.values() for p in part.parameters())


@pytest.mark.parametrize(("name", "size", "start"), TAILS)
def test_the_cost_of_a_tail_is_known_exactly_before_it_is_cut(name: str, size: int, start: int) -> None:
    tail, _, _, x = nets.opened(name, size, start)
    able, last = list(adaptable(tail.part, grouped=True)), readout(tail.part)
    for share, beside in ((0.4, ()), (0.4, able), (0.0, able), (0.4, last)):
        kept = nets.some_channels(tail, share)
        small = extract(tail, kept)
        if beside:
            small = with_parallel_adapters(small, None if beside is able else [str(node.target) for node in last])
        sizes = {group: len(indices) for group, indices in kept.items()}
        found = TailCost(tail, tuple(x.shape[1:]), beside)(sizes)
        assert found.parameter_count == small.parameter_count + _learned(small)
        assert found.macs == count_macs(lambda made=small: made.forward(x[:1]))
        assert TailCost(tail, None, beside)(sizes) == Cost(found.parameter_count, 0)


def _config(**changes) -> CloneConfig:
    given = {"classes": ("9", "7"), "batch_size": 64, "views": 1, "epochs": 3, "position": MIDDLE, "keep_anyway": True}
    given |= changes
    return CloneConfig(**given)


def _spent(pair: Pair, bundle: Bundle) -> Cost:
    """The measured cost of a bundle's module."""
    composed = attach(pair.target[0], bundle)
    (module,) = composed.attached
    if module.head.strict:
        module.head.shutter_bias.data.fill_(
            torch.inf
        )  # open for every image, so the count does not depend on the image
    macs = (multiply_accumulates(network, pair.target[1]) for network in (composed, pair.target[0]))
    held = sum(t.numel() for name, t in bundle.tensors.items() if not name.startswith("kept."))
    sizes = bundle.manifest.sizes
    assert sizes.module + sizes.adapter + sizes.head == held
    return Cost(held, next(macs) - next(macs))


BOUNDED = [
    {"preset": "fast", "max_macs": 0.2, "keep": 1.0},
    {"preset": "joint", "max_macs": 0.2, "keep": 1.0, "masking": "scored"},
    {"preset": "joint", "max_macs": 0.2, "keep": 1.0, "inner_adapters": False, "head": "joint"},
    {"preset": "fast", "max_size": 0.3, "keep": 1.0},
    {"preset": "joint", "max_size": 0.3, "keep": 1.0},
    {"preset": "joint", "max_size": 0.3, "keep": 1.0, "locality": "strict"},
    {"preset": "fast", "max_size": 0.2, "keep": 1.0, "head": "router", "old_images": False},
]


@pytest.mark.parametrize("changes", BOUNDED, ids=lambda changes: " ".join(map(str, changes.values())))
def test_a_finished_module_is_within_its_bounds_and_uses_them(pair: Pair, changes: dict[str, object]) -> None:
    images = pair.images if changes.get("old_images", True) else pair.images.only(("9", "7"))
    config = _config(**changes)
    bundle = clone(pair.target, pair.source, images, config)
    spent, most = _spent(pair, bundle), limits(nets.job(pair.target, pair.source, images, config))
    assert spent.within(most)
    assert bundle.manifest.kept_fraction < 1
    full = Cost(round(0.8 * most.parameter_count), round(0.8 * most.macs))
    assert spent.parameter_count > full.parameter_count or spent.macs > full.macs  # at least one bound is active


@pytest.mark.parametrize("preset", ["fast", "joint"])
@pytest.mark.parametrize(("bound", "share"), [("max_size", 0.01), ("max_macs", 0.001)])
def test_a_fixed_position_where_nothing_fits_is_refused(pair: Pair, preset: str, bound: str, share: float) -> None:
    message = rf"position blocks.1->blocks.1: expected .+ \({bound} {share}\), got [\d,]+ .+ raise {bound}"
    with pytest.raises(PositionError, match=message):
        clone(pair.target, pair.source, pair.images, _config(preset=preset, **{bound: share}))


def test_without_bounds_that_bite_the_mask_is_what_keep_says(pair: Pair) -> None:
    job = nets.job(pair.target, pair.source, pair.images, _config(keep=0.4, max_size=2.0, max_macs=2.0))
    whole = stitch(job, MIDDLE, job.train)
    free, bound = localize(job, whole, bounded=False), localize(job, whole)
    assert all(torch.equal(free.tail.kept[name], kept) for name, kept in bound.tail.kept.items())


def test_pairs_that_must_be_cut_below_keep_are_screened_where_there_are_no_others(pair: Pair) -> None:
    reports: list[Progress] = []
    config = _config(position=None, keep=1.0, max_size=0.15, screen_images=120)
    job = nets.job(pair.target, pair.source, pair.images, config, report=reports.append)
    for position in screen(job):
        small = localize(job, stitch(job, position, job.train))
        assert small.parameter_count <= limits(job).parameter_count
        assert bounds_of(job, stitch(job, position, job.train)).hold_for(
            {n: len(k) for n, k in small.tail.kept.items()}
        )
    assert all(0 < r.data["trial"]["parameters"] <= limits(job).parameter_count for r in reports)


@pytest.mark.parametrize(
    "changes",
    [{"head": "joint"}, {"head": "router", "locality": "strict"}, {"head": "affine", "locality": "strict"}],
)
def test_what_is_foretold_is_what_the_finished_module_costs(pair: Pair, changes: dict[str, str]) -> None:
    config = _config(keep=0.5, max_size=2.0, max_macs=2.0, tap_grid=1, epochs=2, **changes)
    job = nets.job(pair.target, pair.source, pair.images, config)
    bundle = clone(pair.target, pair.source, pair.images, config)
    kept = {name.removeprefix("kept."): len(t) for name, t in bundle.tensors.items() if name.startswith("kept.")}
    foretold, spent = bounds_of(job, stitch(job, MIDDLE, job.train)).cost(kept), _spent(pair, bundle)
    assert foretold.parameter_count == spent.parameter_count
    assert 0 <= foretold.macs - spent.macs <= foretold.parameter_count  # torch does not count a product with a vector


@pytest.mark.parametrize(("most", "head"), [(2.0, "joint"), (0.5, "affine")])
def test_room_is_left_for_a_head_on_all_taps_where_it_takes_little(pair: Pair, most: float, head: str) -> None:
    bounds = {}
    for kind in ("auto", "joint", "affine"):
        job = nets.job(pair.target, pair.source, pair.images, _config(max_size=most, preset="fast", head=kind))
        bounds[kind] = bounds_of(job, whole := stitch(job, MIDDLE, job.train))
    sizes = {group.name: group.width for group in whole.tail.groups}
    cost = {kind: bound.cost(sizes).parameter_count for kind, bound in bounds.items()}
    little = cost["joint"] - cost["affine"] <= limits(job).parameter_count / HEAD_DIVISOR
    assert little == (head == "joint")
    assert cost["auto"] == cost[head]
    assert cost["joint"] > cost["affine"]
