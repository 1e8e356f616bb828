"""KServe's client, in a separate environment, because its dependencies conflict with ours."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pnc_core.images import preprocess
from pnc_core.module.composed import attach
from tests.integration.peers import KSERVE, environment
from tests.unit.serving import world
from tests.unit.serving.world import NAME, World

SCRIPT = Path(__file__).parent / "asking_kserve.py"


@pytest.fixture(scope="module")
def python() -> Path:
    return environment(KSERVE)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = world.make(tmp_path_factory.mktemp("zoo"))
    made.want([made.modules[0]])
    yield made
    made.zoo.close()


@pytest.mark.timeout(600)
def test_kserve_s_client_infers_with_json_and_binary_tensors_either_way(python: Path, here: World) -> None:
    images = here.images(2)
    with world.serving(here.zoo.settings) as (address, _):
        command = [python, SCRIPT, f"http://{address}", NAME, json.dumps(images.tolist())]
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert asked.returncode == 0, asked.stderr[-2000:]
    found: dict[str, Any] = json.loads(asked.stdout)
    assert [found.pop(name) for name in ("live", "ready", "model_ready")] == [True, True, True]
    wanted = attach(here.target[0], here.bundles[0])(preprocess(images, here.target[1]))
    assert len(found) == 4
    for request_id, model, logits in found.values():
        assert (request_id, model) == ("mine-7", NAME)
        assert logits == found["True True"][2]
        assert wanted.tolist() == [pytest.approx(row, abs=1e-4) for row in logits]
