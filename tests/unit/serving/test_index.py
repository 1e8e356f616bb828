"""The list of what is served, while deployments come and go."""

import sys
import threading
from collections.abc import Iterator

import pytest
import tritonclient.http as triton

from tests.unit.serving import world
from tests.unit.serving.world import NAME, World

OTHERS = [f"other-{number}" for number in range(400)]


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
def test_a_deployment_that_comes_or_goes_breaks_no_list(here: World) -> None:
    with world.serving(here.zoo.settings) as (address, server):
        registry, stop = server.app.state.host.registry, threading.Event()  # type: ignore[attr-defined]
        registry._stop.set()  # else its poll would take away what is not wanted
        registry._thread.join()
        sys.setswitchinterval(1e-6)
        served = registry.get(NAME)

        def come_and_go() -> None:
            while not stop.is_set():
                for name in OTHERS:
                    registry._snapshots[name] = served
                for name in OTHERS:
                    registry._snapshots.pop(name)

        changing = threading.Thread(target=come_and_go)
        changing.start()
        try:
            with triton.InferenceServerClient(address) as client:
                for _ in range(60):
                    assert NAME in {row["name"] for row in client.get_model_repository_index()}
                    assert NAME in {row["name"] for row in client.get_inference_statistics()["model_stats"]}
        finally:
            stop.set()
            changing.join()
