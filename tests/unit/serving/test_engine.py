import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from app.serving.engine import Engine, Limits, Overloaded, TooLate
from pnc_core.composed import Composed, attach, without_modules
from pnc_core.data import preprocess
from tests.unit.serving.world import World


@pytest.fixture
def target(here: World) -> Composed:
    return without_modules(*here.target)


@pytest.fixture
def networks(here: World, target: Composed) -> list[Composed]:
    """The target alone, with each module, and with all."""
    alone = [attach(target, bundle) for bundle in here.bundles]
    return [target, *alone, Composed(target.target, target.traced, [one.attached[0] for one in alone])]


class _Counting(Composed):
    """Notes how many images reach it at once; slow if asked to be."""

    def __init__(self, target: Composed, seconds: float = 0.0) -> None:
        super().__init__(target.target, target.traced, [])
        self.batches: list[int] = []
        self.seconds = seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        time.sleep(self.seconds)
        return super().forward(x)


def _engine(**limits: object) -> Iterator[Engine]:
    engine = Engine(Limits(**limits))  # type: ignore[arg-type]
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    yield from _engine(batch=8, wait=0.05, waiting=32)


@pytest.fixture
def exact() -> Iterator[Engine]:
    yield from _engine(batch=8, wait=0.05, waiting=64, deterministic=True)


def _all(engine: Engine, asked: list[tuple[Composed, torch.Tensor]], seconds: float = 20) -> list[torch.Tensor]:
    async def ask() -> list[torch.Tensor]:
        return await asyncio.gather(*(engine.ask(network, images, seconds) for network, images in asked))

    return asyncio.run(ask())


def _pixels(here: World, count: int, seed: int = 0) -> torch.Tensor:
    return preprocess(here.images(count, seed), here.target[1])


def test_requests_that_wait_are_answered_together(here: World, engine: Engine, target: Composed) -> None:
    network = _Counting(target)
    answers = _all(engine, [(network, _pixels(here, 2, seed)) for seed in range(4)])
    assert sum(network.batches) == 8
    assert len(network.batches) < 4
    for seed, answer in enumerate(answers):
        with torch.inference_mode():
            assert torch.allclose(answer, target(_pixels(here, 2, seed)), atol=1e-5)


def test_one_batch_mixes_sets_of_modules_and_each_gets_its_own_answer(
    here: World, engine: Engine, networks: list[Composed]
) -> None:
    asked = [(network, _pixels(here, 1 + number % 2, number)) for number, network in enumerate(networks * 2)]
    for (network, images), answer in zip(asked, _all(engine, asked), strict=True):
        with torch.inference_mode():
            wanted = network(images)
        assert answer.shape == wanted.shape
        assert torch.allclose(answer, wanted, atol=1e-4)


def test_a_mixed_batch_reads_the_trunk_once(here: World, engine: Engine, networks: list[Composed]) -> None:
    rows: list[int] = []
    first = here.target[0].get_submodule("blocks.0.0")
    hook = first.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    try:
        asked = [(network, _pixels(here, 1, number)) for number, network in enumerate(networks)]
        _all(engine, asked)
    finally:
        hook.remove()
    assert sum(rows) == len(asked)


def test_more_images_than_a_batch_holds_are_split(here: World, engine: Engine, target: Composed) -> None:
    network = _Counting(target)
    (answer,) = _all(engine, [(network, _pixels(here, 20))])
    assert network.batches == [8, 8, 4]
    assert len(answer) == 20


def test_in_deterministic_mode_company_changes_no_bit(here: World, exact: Engine, networks: list[Composed]) -> None:
    images = _pixels(here, 1, 7)
    alone = [_all(exact, [(network, images)])[0] for network in networks]
    crowd = [(network, _pixels(here, 1, seed)) for seed in range(3) for network in networks]
    together = _all(exact, [*crowd, *((network, images) for network in networks)])[-len(networks) :]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_in_deterministic_mode_a_local_attach_gives_the_same_bits(
    here: World, exact: Engine, networks: list[Composed]
) -> None:
    images = _pixels(here, 8)
    local = attach(here.target[0], here.bundles[0])
    with torch.inference_mode():
        wanted = local(images)
    assert torch.equal(_all(exact, [(networks[1], images)])[0], wanted)


def test_too_many_are_turned_away_and_the_rest_is_answered(here: World, target: Composed) -> None:
    (engine,) = [Engine(Limits(batch=1, wait=0, waiting=3))]
    network = _Counting(target, seconds=0.05)

    async def ask() -> list[object]:
        engine.start()
        asked = (engine.ask(network, _pixels(here, 1), 20) for _ in range(12))
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(ask())
    engine.close()
    turned_away = [one for one in found if isinstance(one, Overloaded)]
    answered = [one for one in found if isinstance(one, torch.Tensor)]
    assert len(turned_away) + len(answered) == 12
    assert len(turned_away) >= 7
    assert len(answered) >= 3


def test_what_waited_too_long_is_not_run(here: World, target: Composed) -> None:
    engine = Engine(Limits(batch=1, wait=0))
    network = _Counting(target, seconds=0.2)

    async def ask() -> list[object]:
        engine.start()
        first = asyncio.create_task(engine.ask(network, _pixels(here, 1), 20))
        await asyncio.sleep(0.05)
        return await asyncio.gather(first, engine.ask(network, _pixels(here, 1), 0.05), return_exceptions=True)

    found = asyncio.run(ask())
    engine.close()
    assert isinstance(found[0], torch.Tensor)
    assert isinstance(found[1], TooLate)
    assert network.batches == [1]


def test_what_was_given_up_is_not_run(here: World, target: Composed) -> None:
    engine = Engine(Limits(batch=1, wait=0))
    network = _Counting(target, seconds=0.2)

    async def ask() -> None:
        engine.start()
        first = asyncio.create_task(engine.ask(network, _pixels(here, 1), 20))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(engine.ask(network, _pixels(here, 1), 20))
        await asyncio.sleep(0)
        second.cancel()
        await first

    asyncio.run(ask())
    engine.close()
    assert network.batches == [1]


def test_a_network_that_fails_takes_only_its_own_batch_along(here: World, engine: Engine, target: Composed) -> None:
    class Broken(Composed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken")

    broken = Broken(target.target, target.traced, [])
    with pytest.raises(RuntimeError, match="broken"):
        _all(engine, [(broken, _pixels(here, 1))])
    assert len(_all(engine, [(target, _pixels(here, 1))])) == 1


def test_on_closing_what_waits_is_answered(here: World, target: Composed) -> None:
    engine = Engine(Limits(batch=1, wait=0))
    network = _Counting(target, seconds=0.05)

    async def ask() -> list[torch.Tensor]:
        engine.start()
        asked = [asyncio.create_task(engine.ask(network, _pixels(here, 1), 20)) for _ in range(4)]
        await asyncio.sleep(0.01)
        threading.Thread(target=engine.close).start()
        return await asyncio.gather(*asked)

    assert len(asyncio.run(ask())) == 4
