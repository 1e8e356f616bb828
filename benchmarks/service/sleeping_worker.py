"""A worker whose jobs sleep for a fixed time, as if a device did the work. It measures the cost of the queue alone.

    PNC_PRETEND_SECONDS=1 python -m benchmarks.service.sleeping_worker

Everything else is as in `pnc worker`: messages, claims, leases, heartbeats, a child process per job, bundles in the
store.
"""

import os
import time
from collections.abc import Callable

import torch

from app.db.leases import Lease
from app.zoo import Zoo
from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.module.bundle import Bundle
from pnc_core.module.manifest import FORMAT, HeadSpec, Manifest, Sizes
from workers import runner, runner_pool

SECONDS = "PNC_PRETEND_SECONDS"
_SPEC = NetworkSpec(architecture="cnn", classes=("a", "b"), input_size=(1, 8, 8), mean=(0.0,), std=(1.0,))
_INPUT = Position(target="input", source="input")
_NUMBERS = 50_000
"""Numbers in each bundle, as many as in the bundle of a small network."""


def sleep_and_publish(zoo: Zoo, lease: Lease, stopped: Callable[[], bool]) -> None:
    """Sleep, then publish a bundle of random numbers."""
    end = time.monotonic() + float(os.environ[SECONDS])
    while time.monotonic() < end and not stopped():
        time.sleep(0.02)
    numbers = torch.randn(_NUMBERS, generator=torch.Generator().manual_seed(int(lease.id[-8:], 16)))
    runner.publish(zoo, lease, Bundle(_manifest(), {"module.fc.weight": numbers}))


def _manifest() -> Manifest:
    return Manifest(
        format=FORMAT, payload="full", classes=("7",), target=_SPEC, target_fingerprint="t", source=_SPEC,
        source_fingerprint="s", position=_INPUT, adapter_relu=False, kept_fraction=0.5,
        head=HeadSpec(kind="affine", grid=1, target_taps=(), module_taps=()),
        sizes=Sizes(source=1, module=1, adapter=1, head=1), validation={}, config=CloneConfig(classes=("7",)),
        created_by="benchmark",
    )  # fmt: skip


runner.KINDS["job"] = sleep_and_publish  # children are forked from a process that has imported this module

if __name__ == "__main__":
    runner_pool.preload("benchmarks.service.sleeping_worker")
    from workers.main import run

    run()
