"""Modules go in and out of a live deployment; nobody notices but for the classes."""

import json
import os
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
import torch
from starlette.testclient import TestClient

from app.deployments import desired
from app.errors import Loading, NotFound
from app.main import create_app
from app.serving import main as serving_main
from app.serving.engine.engine import Engine, Limits
from app.serving.engine.exporter import Exporter
from app.serving.engine.parts import Reads
from app.serving.engine.sessions import Session
from app.serving.loader.registry import WHOLE_SECONDS, Registry
from app.serving.loader.snapshot import MAX_CHOICES
from app.zoo import open_zoo
from pnc_core.identity import fingerprint
from tests.unit.serving import world
from tests.unit.serving.world import NAME, SETS, World
from tests.unit.statements import counting

CLIENTS, SWAPS, RACES = 8, int(os.environ.get("PNC_SWAPS", "40")), 10


@pytest.fixture
def served(fresh: World) -> Iterator[tuple[World, str, Registry]]:
    with world.serving(fresh.zoo.settings) as (address, server):
        yield fresh, f"http://{address}", server.app.state.host.registry  # type: ignore[attr-defined]


def _sync(url: str, generation: int) -> httpx.Response:
    return httpx.post(f"{url}/internal/sync/{NAME}?generation={generation}", timeout=30)


def _infer(client: httpx.Client, images: torch.Tensor) -> tuple[str, int, list[str]]:
    """Generation, classes of the logits, and names of the classes that an answer claims."""
    raw = {"Inference-Header-Content-Length": "0"}
    answer = client.post(f"/v2/models/{NAME}/infer", content=images.numpy().tobytes(), headers=raw)
    assert answer.status_code == 200, answer.text
    head = json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])
    return head["model_version"], head["outputs"][0]["shape"][1], json.loads(head["parameters"]["classes"])


def _logits(url: str, images: torch.Tensor) -> list[float]:
    raw = {"Inference-Header-Content-Length": "0"}
    content = httpx.post(f"{url}/v2/models/{NAME}/infer", content=images.numpy().tobytes(), headers=raw)
    end = int(content.headers["Inference-Header-Content-Length"])
    return list(torch.frombuffer(bytearray(content.content[end:]), dtype=torch.float32)[: 5 * len(images)].tolist())


class Load:
    """Clients that ask all the time, and some that are gone before the answer."""

    def __init__(self, url: str, images: torch.Tensor) -> None:
        self.failed: list[Exception] = []
        self.seen: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        """Sets of classes that each generation answered with."""
        self.answered = [0] * CLIENTS
        self._url, self._images = url, images
        self._stop = threading.Event()

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        self._threads.append(threading.Thread(target=self._walk_away))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    generation, width, classes = _infer(client, self._images)
                    assert width == len(classes)
                    self.seen[generation].add(tuple(classes))
                    self.answered[number] += 1
                except Exception as error:
                    self.failed.append(error)
                # Clients and service share one interpreter here: without a pause the clients take most of its time.
                time.sleep(0.02)

    def _walk_away(self) -> None:
        port = int(self._url.rpartition(":")[2])
        request = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 64\r\n"
        while not self._stop.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(request.encode() + b"Inference-Header-Content-Length: 0\r\n\r\n" + bytes(64))
            time.sleep(0.05)


@pytest.mark.always
def test_swaps_under_load_lose_nothing_and_leave_nothing(served: tuple[World, str, Registry]) -> None:
    here, url, registry = served
    images = here.images(2)
    before, digest = _logits(url, images), fingerprint(registry.get(NAME).network.target)
    choice = random.Random(0)
    wanted: dict[str, tuple[str, ...]] = {}
    with Load(url, images) as load:
        for number in range(SWAPS):
            places = sorted(choice.sample(range(3), choice.randint(0, 3))) if number < SWAPS - 1 else []
            generation = here.want([here.modules[i] for i in places])
            assert _sync(url, generation).status_code == 200
            wanted[str(generation)] = tuple("01234" + "".join("".join(SETS[i]) for i in places))
    assert not load.failed
    assert min(load.answered) > 0
    assert len(load.seen) > 20
    for number, classes in load.seen.items():
        assert classes == {wanted.get(number, tuple("01234"))}
    assert fingerprint(registry.get(NAME).network.target) == digest
    assert _logits(url, images) == before
    assert registry.get(NAME).use.requests == 0


def test_of_two_operators_who_race_exactly_one_gets_412(served: tuple[World, str, Registry]) -> None:
    here, url, registry = served
    images = here.images(2)
    before, digest = _logits(url, images), fingerprint(registry.get(NAME).network.target)
    app = create_app(here.zoo.settings.model_copy(update={"serving_url": url, "pages": False}))
    path = f"/v1/deployments/{NAME}/modules"
    wishes = [[here.modules[0]], [here.modules[1], here.modules[2]]]
    wanted: dict[str, tuple[str, ...]] = {}
    with TestClient(app, base_url="http://localhost:8000") as http, Load(url, images) as load:

        def change(modules: list[str], generation: int) -> httpx.Response:
            return http.put(path, json={"modules": modules}, headers={"If-Match": f'"{generation}"'})

        with ThreadPoolExecutor(2) as pool:
            for _ in range(RACES):
                generation = registry.get(NAME).generation
                answers = list(pool.map(change, wishes, [generation] * 2))
                assert sorted(answer.status_code for answer in answers) == [200, 412]
                won = next(number for number, answer in enumerate(answers) if answer.status_code == 200)
                wanted[str(generation + 1)] = tuple("012345" if won == 0 else "01234678")
                assert change([], generation + 1).status_code == 200
    assert not load.failed
    for number, classes in load.seen.items():
        assert classes == {wanted.get(number, tuple("01234"))}
    assert fingerprint(registry.get(NAME).network.target) == digest
    assert _logits(url, images) == before


@pytest.mark.parametrize("seconds", [0, 240])
def test_programs_replace_copies_under_load_and_detaching_gives_the_same_bits(fresh: World, seconds: float) -> None:
    """Also those of the first answer, before any program was ready; with 0 seconds torch runs the target alone."""
    settings = fresh.zoo.settings.model_copy(update={"serving_engine": "onnxruntime", "program_seconds": seconds})
    with world.serving(settings) as (address, server):
        url, registry = f"http://{address}", server.app.state.host.registry  # type: ignore[attr-defined]
        exporter, images = registry.mode.exporter, fresh.images(2)
        first = _logits(url, images)
        with Load(url, images) as load:
            assert _sync(url, fresh.want(fresh.modules)).status_code == 200
            assert exporter.settled(240)
            answered = sum(load.answered)
            deadline = time.monotonic() + 20
            while sum(load.answered) < answered + 50 and time.monotonic() < deadline:
                time.sleep(0.05)
        assert not load.failed
        program = registry.get(NAME).program
        assert all(isinstance(branch._run, Session) for branch in program.branches)
        assert program.trunk.program(Reads()) is not None
        assert _sync(url, fresh.want([])).status_code == 200
        assert _logits(url, images) == first
        for modules in (fresh.modules[:1], fresh.modules):
            assert _sync(url, fresh.want(modules)).status_code == 200
            _logits(url, images)
            assert _sync(url, fresh.want([])).status_code == 200
            assert _logits(url, images) == first


def test_a_new_target_waits_for_its_program_while_others_change(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = fresh.zoo.settings.model_copy(update={"serving_engine": "onnxruntime", "program_seconds": 240})
    ready = threading.Event()
    exported = Exporter._exported
    monkeypatch.setattr(Exporter, "_exported", lambda self, order: ready.wait(240) and exported(self, order))
    zoo = open_zoo(settings)
    engine = Engine(Limits(8, 0.001, 8))
    registry = Registry(zoo, engine, serving_main._mode(settings))
    try:
        engine.start()
        registry.sync()
        assert registry.is_preparing(NAME)
        assert not registry.settled()
        with pytest.raises(Loading):
            registry.get(NAME)
        fresh.want(fresh.modules[:1])  # a change meanwhile is served as soon as the engine is chosen
        ready.set()
        assert registry.mode.exporter is not None
        assert registry.mode.exporter.settled(240)
        registry.sync()
        assert not registry.is_preparing(NAME)
        assert [module.id for module in registry.get(NAME).modules] == list(fresh.modules[:1])
        assert registry.settled()
    finally:
        ready.set()
        registry.mode.close()
        engine.close()
        zoo.close()


def _wait_for_all(registry: Registry) -> None:
    """Until all modules have been read ahead."""
    deadline = time.monotonic() + 20
    while len(registry._builder.modules._kept) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(registry._builder.modules._kept) == 3


def test_a_module_that_was_read_ahead_is_attached_at_once(served: tuple[World, str, Registry]) -> None:
    here, url, registry = served
    _wait_for_all(registry)
    took = []
    for modules in ([here.modules[0]], [], [here.modules[1]], []):
        started = time.monotonic()
        generation = here.want(modules)
        assert _sync(url, generation).status_code == 200
        took.append(time.monotonic() - started)
        assert registry.get(NAME).generation == generation
    assert sorted(took)[1] < 0.5


def test_a_round_in_which_nothing_has_changed_reads_the_mark_alone(served: tuple[World, str, Registry]) -> None:
    here, _, registry = served
    _wait_for_all(registry)
    registry._stop.set()
    registry._thread.join()
    registry.follow()
    registry._reported = time.monotonic()
    with counting(registry.zoo) as sent:
        registry.follow()
    assert len([statement for statement in sent if statement.startswith("SELECT")]) == 2
    assert not any("JOIN" in statement for statement in sent)
    generation = here.want([here.modules[0]])
    registry.follow()
    assert registry.get(NAME).generation == generation
    registry._whole_at -= WHOLE_SECONDS
    with counting(registry.zoo) as sent:
        registry.follow()
    assert any("JOIN" in statement for statement in sent), "a whole round from time to time"


def test_a_restart_and_a_second_replica_serve_the_same_before_they_are_ready(fresh: World) -> None:
    fresh.want([fresh.modules[1], fresh.modules[0]])
    images, found = fresh.images(2), []
    for _ in range(2):
        with (
            world.serving(fresh.zoo.settings) as (first, _),
            world.serving(fresh.zoo.settings) as (second, _),
        ):
            for address in (first, second):
                with httpx.Client(base_url=f"http://{address}") as client:
                    assert client.get("/readyz").status_code == 200
                    found.append((_infer(client, images), _logits(f"http://{address}", images)))
    assert all(one == found[0] for one in found)
    assert found[0][0][2] == list("01234675")


def test_a_replica_that_is_not_told_follows_by_itself(served: tuple[World, str, Registry]) -> None:
    here, _, registry = served
    generation = here.want([here.modules[0]])
    deadline = time.monotonic() + 20
    while registry.get(NAME).generation != generation and time.monotonic() < deadline:
        time.sleep(0.05)
    assert registry.get(NAME).network.classes == tuple("012345")


def _spoil(here: World, number: int, change: str) -> str:
    """Damage the stored full bundle of a module; returns its id."""
    with here.zoo.database.read() as session:
        wanted = desired.deployments(session)[0]
        module = next(m for m in desired.attachable(session, wanted, 8) if m.id == here.modules[number])
    if change == "gone":
        here.zoo.store.delete(module.key)
        return module.id
    path = here.zoo.store.path(module.key)  # type: ignore[attr-defined]
    raw = bytearray(path.read_bytes())
    path.chmod(0o644)
    if change == "flip":
        raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw[: len(raw) // 2] if change == "cut" else raw))
    return module.id


@pytest.mark.always
@pytest.mark.parametrize("known", [False, True], ids=["", "after it was read ahead"])
@pytest.mark.parametrize("change", ["flip", "cut", "gone"])
def test_a_spoilt_bundle_is_refused_and_what_is_served_stays(fresh: World, change: str, known: bool) -> None:
    module = _spoil(fresh, 1, change) if not known else fresh.modules[1]
    fresh.want([fresh.modules[0]])
    with world.serving(fresh.zoo.settings) as (address, server):
        registry: Registry = server.app.state.host.registry  # type: ignore[attr-defined]
        if known:
            _wait_for_all(registry)
            _spoil(fresh, 1, change)
        before = registry.get(NAME)
        generation = fresh.want([fresh.modules[0], module])
        answer = _sync(f"http://{address}", generation)
        assert answer.status_code == 409
        assert "expected" in answer.json()["detail"]
        images = fresh.images(1)
        with httpx.Client(base_url=f"http://{address}") as client:
            assert _infer(client, images)[2] == list("012345")
        assert registry.get(NAME).network.attached == before.network.attached


def test_a_module_that_says_the_same_of_every_image_is_refused(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(bundle):
        for name in ("head.scale", "head.weight", "head.bias"):
            bundle.tensors[name].zero_()
        return bundle

    from app.serving.loader import snapshot

    read = snapshot.read_bundle
    monkeypatch.setattr(snapshot, "read_bundle", lambda path: mute(read(path)))
    with world.serving(fresh.zoo.settings) as (address, _):
        answer = _sync(f"http://{address}", fresh.want([fresh.modules[0]]))
    assert answer.status_code == 409
    assert "depend on the image" in answer.json()["detail"]


def test_a_bundle_for_another_target_is_refused(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from app.serving.loader import snapshot

    read = snapshot.read_bundle

    def other(path):
        bundle = read(path)
        return replace(bundle, manifest=replace(bundle.manifest, target_fingerprint="sha256:" + "0" * 64))

    monkeypatch.setattr(snapshot, "read_bundle", other)
    with world.serving(fresh.zoo.settings) as (address, _):
        answer = _sync(f"http://{address}", fresh.want([fresh.modules[0]]))
        assert (answer.status_code, answer.json()["code"]) == (409, "target_mismatch")
        with httpx.Client(base_url=f"http://{address}") as client:
            assert _infer(client, fresh.images(1))[2] == list("01234")


def test_old_generations_are_let_go(served: tuple[World, str, Registry]) -> None:
    here, url, registry = served
    generations = [here.want([here.modules[i % 2]]) for i in range(1)]
    for i in range(1, 8):
        generations.append(here.want([here.modules[i % 2]]))
        assert _sync(url, generations[-1]).status_code == 200
    kept = [g for g in generations if _kept(registry, g)]
    assert kept == generations[-4:]


def _kept(registry: Registry, generation: int) -> bool:
    try:
        return registry.get(NAME, generation).generation == generation
    except NotFound:
        return False


def test_sets_of_modules_that_were_asked_for_do_not_pile_up(served: tuple[World, str, Registry]) -> None:
    here, url, registry = served
    assert _sync(url, here.want(list(here.modules))).status_code == 200
    snapshot = registry.get(NAME)
    for number in range(MAX_CHOICES + 5):
        snapshot._choices[f"made up {number}",] = snapshot.chosen(None)
    choice = snapshot.chosen((here.modules[2], here.modules[0]))
    assert choice.classes == tuple("012345" + "8")
    assert [m.id for m in choice.modules] == [here.modules[0], here.modules[2]]
    assert len(snapshot._choices) <= MAX_CHOICES
