"""Run every public path with networks on a simulated GPU; mixing devices fails."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from pnc_core.analysis.curves import masking_curve
from pnc_core.analysis.evaluation import direct_ensembles, evaluate, multiply_accumulates, predict
from pnc_core.analysis.evidence import module_logits, network_logits, similarity, verify_bundle
from pnc_core.analysis.origin import origin
from pnc_core.analysis.residue import residue
from pnc_core.analysis.watermark import proof_in_bundle
from pnc_core.config import CloneConfig, Localizer, Position
from pnc_core.errors import NetworkError
from pnc_core.graph.architectures import architectures
from pnc_core.graph.positions import trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet
from pnc_core.method.balance import rebalance
from pnc_core.method.checkpoints import FolderCheckpoints
from pnc_core.method.clone import clone, work_out
from pnc_core.method.heads import fit
from pnc_core.method.job import name_images
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.composed import attach, detach
from pnc_core.module.export import to_program
from pnc_core.module.watermark import Mark
from tests.unit import pretended
from tests.unit.pnc_core import nets, slim
from tests.unit.pretended import OnCuda

POSITIONS = {
    "slim/resnet18": Position(target="layer2.0", source="layer3.0"),
    "slim/convnext": Position(target="features.2", source="features.4.0"),
    "slim/vit": Position(target="add_1", source="add_3"),
    "mobilenetv2": Position(target="features.4.conv", source="features.6.conv"),
}
OLD, NEW = "abc", "defg"


@dataclass(frozen=True)
class World:
    """Two networks on the simulated GPU, images, and modules made on the CPU."""

    target: nets.Network
    source: nets.Network
    images: ImageSet
    bundles: tuple[Bundle, Bundle]
    """A module of class d with a joint head and parallel adapters, and a strict module of class e."""
    position: Position
    folder: Path

    def config(self, **settings: object) -> CloneConfig:
        usual = {"epochs": 1, "views": 1, "screen_images": 32, "batch_size": 24, "keep": 0.5, "max_size": 2.0}
        return CloneConfig(classes=("d", "e"), **{"position": self.position, "preset": "fast", **usual, **settings})

    def clone(self, **settings: object) -> Bundle:
        return clone(self.target, self.source, self.images, self.config(**settings))


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    worlds: dict[str, World] = {}
    minimise = fit._minimise
    with pytest.MonkeyPatch.context() as patch:
        # Heads need not converge here: ten steps run every operation of a fit, and two hundred take half of the time.
        patch.setattr(
            fit, "_minimise", lambda head, rows, weights, strength, _: minimise(head, rows, weights, strength, 10)
        )
        for name, builder in slim.BUILDERS.items():
            patch.setitem(architectures(), name, builder)

        def make(name: str) -> World:
            if name not in worlds:
                worlds[name] = _world(name, tmp_path_factory.mktemp("devices"))
            return worlds[name]

        yield make


def _world(name: str, folder: Path) -> World:
    options = {} if "/" in name else {"width": 8}
    target, source = (nets.network(name, 16, classes=classes, **options) for classes in (OLD, NEW))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (70, 3, 16, 16), generator=generator, dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(70) % 7, tuple(OLD + NEW))
    here = target, source, images, POSITIONS[name]
    bundles = (
        nets.hand_made(*here, ("d",), "joint", inner=True),
        nets.hand_made(*here, ("e",), "affine", locality_gate=0.0),
    )
    return World(target, source, images, bundles, POSITIONS[name], folder)


@pytest.fixture
def world(_made: Callable[[str], World], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = _made(request.param)
    target, source = ((copy.deepcopy(net), spec) for net, spec in (made.target, made.source))
    with pretended.cuda():
        target[0].to("cuda")
        source[0].to("cuda")
        yield replace(made, target=target, source=source, folder=tmp_path)


def _on_processor(bundle: Bundle) -> None:
    assert not [name for name, tensor in bundle.tensors.items() if tensor.device.type != "cpu"]


def _cloned(**settings: object) -> Callable[[World], None]:
    return lambda world: _on_processor(world.clone(**settings))


def _without_labels(world: World) -> None:
    job = nets.job(world.target, world.source, world.images, world.config())
    named = name_images(job, world.images.images)
    assert named.labels.device.type == "cpu"
    assert int(named.labels.max()) < len(OLD) + 2


def _resumed(world: World) -> None:
    checkpoints = FolderCheckpoints(world.folder)
    config = world.config(preset="joint", refine=1, position=None, shortlist=2, epochs=2)
    first = clone(world.target, world.source, world.images, config, checkpoints=checkpoints)
    again = clone(world.target, world.source, world.images, config, checkpoints=checkpoints)
    assert first.to_bytes() == again.to_bytes()


def _one_step(world: World) -> None:
    step = f"trial|1|1|{world.position.target}|{world.position.source}"
    config = world.config(preset="joint", position=None)
    where = FolderCheckpoints(world.folder)
    state = work_out(world.target, world.source, world.images, config, step, checkpoints=where)
    assert state.facts["trial"]["parameters"] > 0


def _marked(world: World) -> None:
    mark = Mark(bytes(32))
    bundle = clone(world.target, world.source, world.images, world.config(), mark=mark)
    assert proof_in_bundle(mark, bundle).channels > 0


def _localized(localizer: Localizer) -> Callable[[World], None]:
    return _cloned(localizer=localizer)


def _attached(world: World) -> None:
    before = fingerprint(world.target[0])
    full, thin = world.folder / "full", world.folder / "thin"
    world.bundles[0].write(full)
    world.bundles[0].thin().write(thin)
    for composed in (attach(world.target[0], full), attach(world.target[0], read_bundle(thin), world.source[0])):
        logits = predict(composed, world.target[1], world.images.images)
        assert logits.shape == (70, 4)
        assert all(isinstance(tensor, OnCuda) for tensor in composed.state_dict().values())
    assert detach(composed) is world.target[0]
    assert fingerprint(world.target[0]) == before


def _judged(world: World) -> None:
    composed = attach(attach(world.target[0], world.bundles[0]), world.bundles[1])
    assert 0 <= evaluate(composed, world.images).all <= 1
    assert set(direct_ensembles(world.target, world.source, ("d", "e"), world.images)) == {"raw", "softmax"}
    assert multiply_accumulates(composed, world.target[1]) > 0
    assert multiply_accumulates(composed, world.target[1], world.images.images[:8]) > 0


def _rebalanced(world: World) -> None:
    composed = attach(world.target[0], world.bundles[0])
    for head in ("affine", "joint"):
        fitted = rebalance(composed, world.images, head=head, augmentation="shift")
        predict(fitted, world.target[1], world.images.images)
        evaluate(attach(fitted, world.bundles[1]), world.images)


def _evidence(world: World) -> None:
    bundle = world.bundles[0]
    assert verify_bundle(bundle, world.source[0]).tensors > 0
    (module,) = attach(world.target[0], bundle).attached
    explained = network_logits(*world.source), module_logits(trace(*world.target), module)
    found = similarity(*explained, world.images, world.source[1], ("d",), limit=1)
    assert found.module.device.type == "cpu"


def _residue(world: World) -> None:
    for bundle in (world.bundles[0], world.bundles[0].thin()):
        assert residue(world.target, world.source, bundle, world.images).images > 0


def _origin(world: World) -> None:
    own = {name: tensor for name, tensor in world.source[0].state_dict().items() if tensor.ndim in (2, 4)}
    few = dict(list(own.items())[:3])
    assert origin(few, few).channels > 0


def _curve(world: World) -> None:
    config = world.config(head="router")
    assert masking_curve(world.target, world.source, world.images, config, shares=(0.5,), epochs=1)


def _exported(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # torch.export does not support the simulated GPU: check that it gets CPU tensors only, and do not run it.
        patch.setattr(torch.export, "export", _Exported)
        to_program(attach(world.target[0], world.bundles[0]), world.target[1], pixels=True)


class _Exported:
    """Stands for torch.export's result: the network itself."""

    def __init__(self, network: torch.nn.Module, examples: tuple[torch.Tensor, ...], **_: object) -> None:
        assert not [name for name, t in network.state_dict().items() if t.device.type != "cpu"]
        network(*examples)
        self._network = network

    def module(self) -> torch.nn.Module:
        return self._network


PATHS: dict[str, Callable[[World], None]] = {
    "fast": _cloned(),
    "fast in bfloat16": _cloned(precision="bfloat16"),
    "joint": _cloned(preset="joint", epochs=2),
    "joint in bfloat16": _cloned(preset="joint", epochs=2, precision="bfloat16"),
    "scored mask": _cloned(preset="joint", masking="scored"),
    "refine": _cloned(preset="joint", refine=1),
    "strict": _cloned(locality="strict"),
    "no old images": _cloned(old_images=False),
    "searched": _cloned(position=None, shortlist=2, screen_images=33),
    "lime": _localized("lime"),
    "magnitude": _localized("magnitude"),
    "gradient-activation": _localized("gradient-activation"),
    "log-odds": _localized("log-odds"),
    "random": _localized("random"),
    "marked": _marked,
    "no labels": _without_labels,
    "resumed": _resumed,
    "one step": _one_step,
    "attach": _attached,
    "evaluate": _judged,
    "rebalance": _rebalanced,
    "evidence": _evidence,
    "residue": _residue,
    "origin": _origin,
    "masking curve": _curve,
    "export": _exported,
}
OFTEN = {
    *((name, "slim/resnet18") for name in PATHS),
    *((name, other) for name in ("fast", "attach") for other in POSITIONS),
    *(("residue", "slim/vit"), ("joint", "slim/vit"), ("no old images", "mobilenetv2"), ("refine", "slim/convnext")),
} - {("resumed", "slim/resnet18")}
"""Every path with one architecture, and the paths that depend most on the architecture with all; the rest is slow."""


@pytest.mark.always
@pytest.mark.filterwarnings("ignore::pnc_core.devices.SlowPrecision")  # expected on processors where bfloat16 is slow
@pytest.mark.parametrize(
    ("path", "world"),
    [
        pytest.param(PATHS[path], name, id=f"{path} {name}", marks=() if (path, name) in OFTEN else pytest.mark.slow)
        for path in PATHS
        for name in POSITIONS
    ],
    indirect=["world"],
)
def test_a_path_keeps_to_the_device(path: Callable[[World], None], world: World) -> None:
    path(world)


@pytest.mark.parametrize("world", ["slim/resnet18"], indirect=True)
def test_networks_on_two_devices_are_refused_before_any_work(world: World) -> None:
    lost = copy.deepcopy(world.source[0]).cpu()
    with pytest.raises(NetworkError, match="expected both on one device, got cuda:0 and cpu"):
        clone(world.target, (lost, world.source[1]), world.images, world.config())
