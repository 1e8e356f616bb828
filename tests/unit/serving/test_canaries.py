"""A canary answers a share of the requests; every answer is of exactly one set of modules."""

import json
import threading
import time
from collections.abc import Iterator, Sequence

import httpx
import pytest
import torch

from app.demo import png
from app.deployments import service as deployments
from app.deployments.canary import service as canaries
from app.modules import service as modules
from app.serving.canary import comparing
from app.serving.canary.comparing import MOST_IMAGES, MOST_WAITING
from app.serving.canary.counts import Counts
from app.serving.engine.engine import Engine
from app.serving.loader.registry import Registry
from pnc_client.schemas.canaries import CanaryCounts
from tests.unit.serving import world
from tests.unit.serving.world import NAME, SETS, World

OLD, BOTH = "01234", "01234" + "".join(SETS[0])


class Served:
    """A serving process on a socket, and the zoo that it follows."""

    def __init__(self, here: World, url: str, registry: Registry) -> None:
        self.here, self.url, self.registry = here, url, registry
        self.http = httpx.Client(base_url=url, timeout=30)

    def sync(self) -> httpx.Response:
        return self.http.post(f"/internal/sync/{NAME}?generation={self.generation()}")

    def generation(self) -> int:
        with self.here.zoo.database.read() as session:
            return deployments.get(session, NAME).generation

    def canary(self, modules: Sequence[str], share: float, mode: str = "canary") -> httpx.Response:
        with self.here.zoo.database.write() as session:
            canaries.put(session, NAME, modules, mode=mode, share=share)
        return self.sync()

    def want(self, modules: Sequence[str]) -> None:
        self.here.want(modules)
        assert self.sync().status_code == 200

    def infer(self, images: torch.Tensor, path: str = NAME, **parameters: str) -> tuple[dict[str, str], list[float]]:
        """The parameters of an answer, and the logits."""
        tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.flatten().tolist()}
        body = {"inputs": [tensor], "outputs": [{"name": "logits"}], "parameters": parameters}
        answer = self.http.post(f"/v2/models/{path}/infer", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return found["parameters"], found["outputs"][0]["data"]


@pytest.fixture
def served(fresh: World) -> Iterator[Served]:
    with world.serving(fresh.zoo.settings) as (address, server):
        found = Served(fresh, f"http://{address}", server.app.state.host.registry)  # type: ignore[attr-defined]
        yield found
        found.http.close()


def test_share_0_answers_never_and_share_1_always(served: Served) -> None:
    images = served.here.images(1)
    for share, expected in ((0.0, ("main", OLD)), (1.0, ("canary", BOTH))):
        assert served.canary([served.here.modules[0]], share).status_code == 200
        seen = [served.infer(images)[0] for _ in range(20)]
        assert {(one["module_set"], "".join(json.loads(one["classes"]))) for one in seen} == {expected}


def test_a_share_is_answered_by_the_canary_and_each_answer_is_of_one_set(served: Served) -> None:
    images = served.here.images(1)
    served.canary([served.here.modules[0]], 0.5)
    alone = served.infer(images, module_set="main")
    composed = served.infer(images, module_set="canary")
    seen = [served.infer(images) for _ in range(100)]
    for parameters, logits in seen:
        expected = alone if parameters["module_set"] == "main" else composed
        assert (parameters, logits) == expected
    hits = sum(parameters["module_set"] == "canary" for parameters, _ in seen)
    assert 20 < hits < 80  # with a fair draw outside of this once in 1e9 runs


def test_its_modules_are_not_there_for_requests_that_name_modules_or_a_generation(served: Served) -> None:
    images, module = served.here.images(1), served.here.modules[0]
    served.canary([module], 1.0)
    generation = served.generation()
    assert served.infer(images, f"{NAME}/versions/{generation}")[0]["module_set"] == "main"
    assert served.infer(images, modules="")[0]["module_set"] == "main"
    named = served.http.post(f"/v2/models/{NAME}+{module}/infer", json={})
    assert named.status_code == 404
    body = {"inputs": [], "parameters": {"modules": module, "module_set": "canary"}}
    assert served.http.post(f"/v2/models/{NAME}/infer", json=body).status_code == 400
    listed = {row["name"] for row in served.http.post("/v2/repository/index").json()}
    assert listed == {NAME}
    assert "module" not in served.http.get(f"/v2/models/{NAME}").json()["outputs"][0]
    assert served.http.get(f"/v2/models/{NAME}").json()["outputs"][0]["shape"] == [-1, len(OLD)]


def test_an_image_is_answered_by_the_set_that_it_names(served: Served) -> None:
    image = png(served.here.images(1)[0])
    path = f"/v1/deployments/{NAME}/predict"
    without = served.http.post(path, content=image, params={"module_set": "canary"})
    assert (without.status_code, without.json()["code"]) == (404, "not_found")
    served.canary([served.here.modules[0]], 1.0)
    drawn, main = (served.http.post(path, content=image, params=p).json() for p in ({}, {"module_set": "main"}))
    assert (drawn["module_set"], [m["id"] for m in drawn["modules"]]) == ("canary", [served.here.modules[0]])
    assert (main["module_set"], main["modules"], len(main["classes"])) == ("main", [], 5)
    wrong = served.http.post(path, content=image, params={"module_set": "other"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid")


def test_detaching_and_promoting_beside_a_canary_give_the_same_bits(served: Served) -> None:
    here, images = served.here, served.here.images(2)
    before = served.infer(images)[1]
    served.canary([here.modules[0]], 0.5)
    served.want([here.modules[1]])
    served.want([])
    assert served.infer(images, module_set="main")[1] == before
    composed = served.infer(images, module_set="canary")[1]
    with here.zoo.database.write() as session:
        canaries.promote(session, NAME)
    assert served.sync().status_code == 200
    parameters, logits = served.infer(images)
    assert (parameters["module_set"], parameters["modules"], logits) == ("main", here.modules[0], composed)
    served.want([])
    assert served.infer(images)[1] == before


def test_a_canary_that_cannot_be_loaded_is_refused_and_after_a_restart_left_out(served: Served) -> None:
    here, images = served.here, served.here.images(1)
    served.canary([here.modules[0]], 1.0)
    with here.zoo.database.read() as session:
        keys = {number: modules.bundle(session, here.modules[number], "full").key for number in (0, 2)}
    served.registry._unfit.clear()
    for key in keys.values():
        (here.zoo.settings.data_dir / "objects" / key).write_bytes(b"damaged")
    refused = served.canary([here.modules[2]], 1.0)
    assert refused.status_code == 409
    assert served.infer(images)[0]["modules"] == here.modules[0]  # the earlier canary goes on
    with world.serving(here.zoo.settings) as (address, _):
        answer = httpx.post(f"http://{address}/v2/models/{NAME}/infer", content=bytes(64), headers=RAW)
        assert answer.status_code == 200
        assert json.loads(answer.content[: int(answer.headers[HEADER])])["parameters"]["module_set"] == "main"


class Tallies:
    """Counts of a served canary in the database, once the process has written them."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def now(self) -> CanaryCounts:
        with self._served.here.zoo.database.read() as session:
            return CanaryCounts.of(canaries.get(session, NAME).canary)

    def wait(self, compared: int) -> CanaryCounts:
        """The counts when so many images have been compared, dropped or failed."""
        deadline = time.monotonic() + 20
        while True:
            found = self.now()
            done = found.agreed + found.differed + found.dropped + found.failed
            if done >= compared or time.monotonic() > deadline:
                assert done == compared
                return found
            time.sleep(0.05)


def test_a_shadow_answers_nothing_and_is_compared(served: Served) -> None:
    images = served.here.images(4)
    before = [served.infer(one[None]) for one in images]
    assert served.canary([served.here.modules[0]], 1.0, "shadow").status_code == 200
    shadow = [served.infer(one[None], module_set="canary") for one in images]  # named, so not counted
    seen = [served.infer(one[None]) for one in images]
    assert [logits for _, logits in seen] == [logits for _, logits in before]
    assert {parameters["module_set"] for parameters, _ in seen} == {"main"}
    counts = Tallies(served).wait(4)
    assert (counts.main_requests, counts.canary_requests, counts.dropped, counts.failed) == (4, 0, 0, 0)
    old = torch.tensor([logits for _, logits in before])
    new = torch.tensor([logits for _, logits in shadow])
    assert counts.agreed == int((old.argmax(1) == new.argmax(1)).sum())
    expected = (old - new[:, :5]).abs().amax(1).mean().item()
    assert counts.mean_logit_difference == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_in_the_mode_canary_the_attached_modules_run_beside_its_answers(served: Served) -> None:
    images = served.here.images(1)
    served.canary([served.here.modules[0]], 0.5)
    seen = [served.infer(images)[0]["module_set"] for _ in range(40)]
    counts = Tallies(served).wait(seen.count("canary"))
    assert (counts.main_requests, counts.canary_requests) == (seen.count("main"), seen.count("canary"))
    served.canary([served.here.modules[0]], 0.0)  # another share goes on counting
    served.infer(images)
    deadline = time.monotonic() + 20
    while Tallies(served).now().main_requests == counts.main_requests and time.monotonic() < deadline:
        time.sleep(0.05)
    assert Tallies(served).now().main_requests == counts.main_requests + 1


def test_of_a_long_request_the_first_images_are_compared(served: Served) -> None:
    served.canary([served.here.modules[0]], 1.0, "shadow")
    served.infer(served.here.images(MOST_IMAGES + 8))
    assert Tallies(served).wait(MOST_IMAGES).main_requests == 1


def test_a_shadow_that_fails_changes_no_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    images = served.here.images(1)
    before = served.infer(images)

    def fail(*_: object) -> None:
        raise RuntimeError("a broken kernel")

    monkeypatch.setattr(Engine, "answer_beside", fail)
    served.canary([served.here.modules[0]], 1.0, "shadow")
    assert [served.infer(images)[1] for _ in range(3)] == [before[1]] * 3
    assert Tallies(served).wait(3).failed == 3


@pytest.mark.always
def test_a_shadow_that_hangs_delays_no_answer_and_drops_what_its_queue_cannot_take(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, go_on = served.here.images(1), threading.Event()
    real = Engine.answer_beside
    monkeypatch.setattr(Engine, "answer_beside", lambda *args: go_on.wait(60) and real(*args))
    served.canary([served.here.modules[0]], 1.0, "shadow")
    try:
        for _ in range(MOST_WAITING + 6):  # one hangs, 64 wait, 5 are dropped
            assert served.infer(images)[0]["module_set"] == "main"
    finally:
        go_on.set()
    counts = Tallies(served).wait(MOST_WAITING + 6)
    assert counts.dropped == 5


def test_a_comparison_waits_for_a_moment_without_requests(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(Engine, "is_idle", property(lambda engine: False))
    served.canary([served.here.modules[0]], 1.0, "shadow")
    served.infer(served.here.images(1))
    assert Tallies(served).wait(1).dropped == 1


def test_metrics_hold_the_same_counts(served: Served) -> None:
    served.canary([served.here.modules[0]], 1.0, "shadow")
    before = served.http.get("/metrics").text
    for _ in range(3):
        served.infer(served.here.images(1))
    Tallies(served).wait(3)

    def sums(text: str, name: str) -> float:
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    after = served.http.get("/metrics").text
    for name in ("pnc_canary_requests_total", "pnc_canary_comparisons_total", "pnc_canary_logit_difference_count"):
        assert sums(after, name) - sums(before, name) == 3


def test_counts_that_cannot_be_written_are_kept(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh.zoo.database.write() as session:
        canaries.put(session, NAME, [fresh.modules[0]], mode="shadow", share=1.0)
        canary = canaries.get(session, NAME).canary_id
    counts = Counts()
    counts.add(canary, main_requests=1, agreed=2)

    def fail(*_: object) -> None:
        raise OSError("away")

    with monkeypatch.context() as broken:
        broken.setattr(canaries, "count", fail)
        with pytest.raises(OSError, match="away"):
            counts.write(fresh.zoo.database)
    counts.add(canary, main_requests=1)
    counts.write(fresh.zoo.database)
    counts.write(fresh.zoo.database)
    with fresh.zoo.database.read() as session:
        row = canaries.get(session, NAME).canary
        assert (row.main_requests, row.agreed) == (2, 2)


HEADER = "Inference-Header-Content-Length"
RAW = {HEADER: "0"}
