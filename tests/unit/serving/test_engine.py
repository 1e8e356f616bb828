import asyncio
import threading
import time
from collections.abc import Collection, Iterator

import pytest
import torch

from app.serving.engine.engine import Engine, Limits, Overloaded, TooLate
from app.serving.engine.modes import Mode
from app.serving.engine.programs import Branch, CommonHead, Program, Trunk, TrunkOutput, put_together
from pnc_core.images import Views, preprocess
from pnc_core.module.composed import Composed, attach, without_modules
from tests.unit.serving.world import World


def _programs(here: World, mode: Mode) -> list[Program]:
    """The target alone, with each module, and with all."""
    trunk = Trunk(without_modules(*here.target), mode)
    branches = [Branch(attach(trunk.target, bundle).attached[0], trunk) for bundle in here.bundles]
    return [put_together(trunk, some) for some in ([], *([branch] for branch in branches), branches)]


@pytest.fixture(scope="module")
def programs(here: World) -> list[Program]:
    return _programs(here, Mode())


@pytest.fixture(scope="module")
def exact_programs(here: World) -> list[Program]:
    return _programs(here, Mode(exact=True))


@pytest.fixture
def target(programs: list[Program]) -> Program:
    return programs[0]


class _Counting(Trunk):
    """Notes how many images reach it at once; slow if asked to be."""

    def __init__(self, here: World, seconds: float = 0.0) -> None:
        super().__init__(without_modules(*here.target), Mode())
        self.batches: list[int] = []
        self.seconds = seconds

    def read(
        self,
        x: torch.Tensor,
        branches: Collection[Branch],
        images: Views | None = None,
        common: Collection[CommonHead] = (),
    ) -> TrunkOutput:
        self.batches.append(len(x))
        time.sleep(self.seconds)
        return super().read(x, branches, images, common)


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
    yield from _engine(batch=8, wait=0.05, waiting=64, sizes=(8,))


def _all(engine: Engine, asked: list[tuple[Program, torch.Tensor]], seconds: float = 20) -> list[torch.Tensor]:
    async def ask() -> list[torch.Tensor]:
        return await asyncio.gather(*(engine.ask(program, images, seconds) for program, images in asked))

    return asyncio.run(ask())


def _local(here: World, network: Composed, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(preprocess(images, here.target[1]))


def test_requests_that_wait_are_answered_together(here: World, engine: Engine) -> None:
    trunk = _Counting(here)
    answers = _all(engine, [(put_together(trunk, []), here.images(2, seed)) for seed in range(4)])
    assert sum(trunk.batches) == 8
    assert len(trunk.batches) < 4
    for seed, answer in enumerate(answers):
        assert torch.allclose(answer, _local(here, trunk.target, here.images(2, seed)), atol=1e-5)


def test_one_batch_mixes_sets_of_modules_and_each_gets_its_own_answer(
    here: World, engine: Engine, programs: list[Program]
) -> None:
    asked = [(program, here.images(1 + number % 2, number)) for number, program in enumerate(programs * 2)]
    for (program, images), answer in zip(asked, _all(engine, asked), strict=True):
        wanted = _local(here, program.network, images)
        assert answer.shape == wanted.shape
        assert torch.allclose(answer, wanted, atol=1e-4)


def test_pixels_and_preprocessed_images_are_told_apart(here: World, engine: Engine, target: Program) -> None:
    images = here.images(2)
    pixels, floats = _all(engine, [(target, images), (target, preprocess(images, here.target[1]))])
    assert torch.equal(pixels, floats)


def test_a_mixed_batch_reads_the_trunk_once(here: World, engine: Engine) -> None:
    trunk = _Counting(here)
    branches = [Branch(attach(trunk.target, bundle).attached[0], trunk) for bundle in here.bundles]
    asked = [(put_together(trunk, [branch]), here.images(1, number)) for number, branch in enumerate(branches)]
    _all(engine, asked)
    assert sum(trunk.batches) == len(asked)


def test_more_images_than_a_batch_holds_are_split(here: World, engine: Engine) -> None:
    trunk = _Counting(here)
    (answer,) = _all(engine, [(put_together(trunk, []), here.images(20))])
    assert trunk.batches == [8, 8, 4]
    assert len(answer) == 20


def test_only_allowed_sizes_of_batches_are_run(here: World) -> None:
    engine = Engine(Limits(batch=8, wait=0, sizes=(1, 4, 8)))
    engine.start()
    trunk = _Counting(here)
    answers = [_all(engine, [(put_together(trunk, []), here.images(count))])[0] for count in (1, 2, 4, 5)]
    assert trunk.batches == [1, 4, 4, 8]
    engine.close()
    assert [len(answer) for answer in answers] == [1, 2, 4, 5]


def test_in_deterministic_mode_company_changes_no_bit(
    here: World, exact: Engine, exact_programs: list[Program]
) -> None:
    images = here.images(1, 7)
    alone = [_all(exact, [(program, images)])[0] for program in exact_programs]
    crowd = [(program, here.images(1, seed)) for seed in range(3) for program in exact_programs]
    together = _all(exact, [*crowd, *((program, images) for program in exact_programs)])[-len(exact_programs) :]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_in_deterministic_mode_a_local_attach_gives_the_same_bits(
    here: World, exact: Engine, exact_programs: list[Program]
) -> None:
    images = here.images(8)
    for program, bundle in zip(exact_programs[1:], here.bundles, strict=False):
        wanted = _local(here, attach(here.target[0], bundle), images)
        assert torch.equal(_all(exact, [(program, images)])[0], wanted)


def test_too_many_are_turned_away_and_the_rest_is_answered(here: World) -> None:
    (engine,) = [Engine(Limits(batch=1, wait=0, waiting=3))]
    program = put_together(_Counting(here, seconds=0.05), [])

    async def ask() -> list[object]:
        engine.start()
        asked = (engine.ask(program, here.images(1), 20) for _ in range(12))
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(ask())
    engine.close()
    turned_away = [one for one in found if isinstance(one, Overloaded)]
    answered = [one for one in found if isinstance(one, torch.Tensor)]
    assert len(turned_away) + len(answered) == 12
    assert len(turned_away) >= 7
    assert len(answered) >= 3


def test_what_waited_too_long_is_not_run(here: World) -> None:
    engine = Engine(Limits(batch=1, wait=0))
    program = put_together(_Counting(here, seconds=0.2), [])

    async def ask() -> list[object]:
        engine.start()
        first = asyncio.create_task(engine.ask(program, here.images(1), 20))
        await asyncio.sleep(0.05)
        return await asyncio.gather(first, engine.ask(program, here.images(1), 0.05), return_exceptions=True)

    found = asyncio.run(ask())
    engine.close()
    assert isinstance(found[0], torch.Tensor)
    assert isinstance(found[1], TooLate)
    assert program.trunk.batches == [1]  # type: ignore[attr-defined]


def test_what_was_given_up_is_not_run(here: World) -> None:
    engine = Engine(Limits(batch=1, wait=0))
    program = put_together(_Counting(here, seconds=0.2), [])

    async def ask() -> None:
        engine.start()
        first = asyncio.create_task(engine.ask(program, here.images(1), 20))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(engine.ask(program, here.images(1), 20))
        await asyncio.sleep(0)
        second.cancel()
        await first

    asyncio.run(ask())
    engine.close()
    assert program.trunk.batches == [1]  # type: ignore[attr-defined]


def test_a_network_that_fails_takes_only_its_own_batch_along(here: World, engine: Engine, target: Program) -> None:
    class Broken(Trunk):
        def read(self, *_: object, **__: object) -> TrunkOutput:
            raise RuntimeError("broken")

    broken = put_together(Broken(target.network, Mode()), [])
    with pytest.raises(RuntimeError, match="broken"):
        _all(engine, [(broken, here.images(1))])
    assert len(_all(engine, [(target, here.images(1))])) == 1


def test_on_closing_what_waits_is_answered(here: World) -> None:
    engine = Engine(Limits(batch=1, wait=0))
    program = put_together(_Counting(here, seconds=0.05), [])

    async def ask() -> list[torch.Tensor]:
        engine.start()
        asked = [asyncio.create_task(engine.ask(program, here.images(1), 20)) for _ in range(4)]
        await asyncio.sleep(0.01)
        threading.Thread(target=engine.close).start()
        return await asyncio.gather(*asked)

    assert len(asyncio.run(ask())) == 4
