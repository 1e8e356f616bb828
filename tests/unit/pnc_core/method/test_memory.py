"""The estimate of a job's memory lies above the measured use, and below twice of it."""

import json
import subprocess
import sys

import pytest

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import Traced, trace
from pnc_core.method.memory import estimate, kept_numbers, live_numbers
from tests.unit.pnc_core import nets

FIRST = Position(target="layer1.0", source="layer1.0")
LAST = Position(target="layer3.0", source="layer3.0")


def traced(architecture: str = "resnet20", side: int = 16, classes: str = "abc", device: str = "cpu") -> Traced:
    spec = NetworkSpec(
        architecture=architecture,
        classes=tuple(classes),
        input_size=(3, side, side),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    return trace(build_network(spec, device=device).requires_grad_(False), spec)


def config(**given: object) -> CloneConfig:
    return CloneConfig(**{"classes": ("d",), "position": FIRST, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"batch_size": 256}, {"batch_size": 64}),
        ({"views": 8}, {"views": 1}),
        ({"position": FIRST}, {"position": LAST}),
        ({"position": None, "preset": "fast"}, {"position": LAST, "preset": "fast"}),
    ],
)
def test_every_advice_of_the_refusal_lowers_the_estimate(more: dict[str, object], less: dict[str, object]) -> None:
    pair = traced(), traced(classes="de")
    assert estimate(*pair, 1000, config(**more)).host > estimate(*pair, 1000, config(**less)).host


def test_more_images_need_more_memory() -> None:
    pair = traced(), traced(classes="de")
    few, many = (estimate(*pair, images, config()) for images in (1000, 100_000))
    assert many.host - few.host > 99_000 * 3 * 16 * 16


def test_beside_a_device_images_and_taps_stay_on_the_host() -> None:
    pair = traced(), traced(classes="de")
    here = estimate(*pair, 1000, config())
    there = estimate(traced(device="meta"), traced(classes="de", device="meta"), 1000, config())
    assert here.device == 0
    assert there.device > 0
    assert there.host < here.host <= there.host + there.device


def test_the_backward_pass_keeps_more_than_is_alive_at_once() -> None:
    network = traced(classes="de")
    kept = kept_numbers(network, network.position("layer1.0"), config())
    assert kept > 4 * live_numbers(network)
    assert kept > kept_numbers(network, network.position("layer3.0"), config())


MEASURED = """
import json, resource, sys
import torch
from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.graph.architectures import build_network
from pnc_core.graph.positions import trace
from pnc_core.images import ImageSet
from pnc_core.method.clone import clone
from pnc_core.method.memory import estimate

torch.set_num_threads(1)
name, side, count, given = json.loads(sys.argv[1])
if given.get("position"):
    given["position"] = Position(**given["position"])
config = CloneConfig(classes=("d", "e"), keep_anyway=True, epochs=1, **given)
networks = []
for seed, classes in enumerate(("abc", "defg")):
    spec = NetworkSpec(architecture=name, classes=tuple(classes), input_size=(3, side, side), mean=(0.5,) * 3,
                       std=(0.25,) * 3)
    torch.manual_seed(seed)
    networks.append((build_network(spec).eval().requires_grad_(False), spec))
needed = estimate(*(trace(*network) for network in networks), count, config).host
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
generator = torch.Generator().manual_seed(0)
pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
clone(*networks, ImageSet(pixels, torch.arange(count) % 5, tuple("abcde")), config)
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
# Not ru_maxrss: it starts at the peak of the process that started this one.
print(before, needed, int(lines["VmHWM"].split()[0]) * 1024)
"""
ENDS = {"target": "layer1.0", "source": "layer1.0"}
LATE = {"target": "layer3.0", "source": "layer3.0"}
JOBS = {
    "training": ("resnet20", 32, 300, {"views": 1, "position": ENDS}),
    "heads": ("resnet20", 16, 2000, {"views": 6, "position": LATE}),
    "in place": (
        "torchvision/mobilenet_v2",
        64,
        150,
        {"views": 1, "batch_size": 64, "position": {"target": "features.3", "source": "features.3"}},
    ),
    "tails": ("torchvision/resnet18", 32, 60, {"preset": "fast", "batch_size": 16, "screen_images": 32}),
}


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_the_estimate_is_above_the_measured_use_and_below_twice_of_it(job: tuple[object, ...]) -> None:
    """In a process of its own, since memory that was once taken is not given back."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, needed, peak = map(int, done.stdout.split())
    print(f"estimated {(before + needed) / 2**20:.0f} MiB, measured {peak / 2**20:.0f} MiB")
    assert peak < before + needed < 2 * peak


def test_the_networks_of_the_tests_have_an_estimate() -> None:
    pair = nets.spec("cnn", 8, 1, "01234", width=8), nets.spec("cnn", 8, 1, "56789", width=8)
    networks = [trace(build_network(spec).eval().requires_grad_(False), spec) for spec in pair]
    assert estimate(networks[0], networks[1], 100, CloneConfig(classes=("9",))).host > 0
