import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pnc_core.config import CloneConfig
from pnc_core.errors import Cancelled, ConfigError, TensorFileError
from pnc_core.method.checkpoints import FolderCheckpoints, State
from pnc_core.method.clone import clone
from pnc_core.module.bundle import Bundle, digest
from tests.unit.pnc_core.conftest import Pair

CONFIG = CloneConfig(
    classes=("9", "7"), epochs=4, refine=1, shortlist=2, views=1, screen_images=100, batch_size=64, keep=0.4
)


PIECES: set[str] = set()
"""Paths of the nested pieces of work in `undisturbed`, such as `search/trials`."""


@pytest.fixture(scope="module")
def undisturbed(pair: Pair) -> tuple[Bundle, int]:
    """The bundle, and the number of calls of `cancelled`."""
    asked, stack = 0, []

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return False

    @contextmanager
    def watch(piece: str) -> Iterator[None]:
        stack.append(piece)
        PIECES.add("/".join(stack))
        yield
        stack.pop()

    return clone(pair.target, pair.source, pair.images, CONFIG, cancelled=cancelled, watch=watch), asked


@pytest.mark.usefixtures("undisturbed")
def test_who_watches_sees_every_piece_and_where_it_belongs() -> None:
    assert {
        "search",
        "search/screening",
        "search/screening/adapter",
        "search/trials",
        "search/trials/adapter",
        "search/trials/localization",
        "insertion",
        "insertion/adapter",
        "insertion/localization",
        "refining",
        "heads",
    } == PIECES


def _stop_after(count: int) -> Callable[[], bool]:
    calls = iter(range(count))
    return lambda: next(calls, None) is None


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
def test_an_interrupted_job_goes_on_to_the_same_bundle(
    pair: Pair, undisturbed: tuple[Bundle, int], tmp_path: Path, share: float
) -> None:
    bundle, asked = undisturbed
    kept = FolderCheckpoints(tmp_path)
    stop = _stop_after(round(share * asked))
    with pytest.raises(Cancelled):
        clone(pair.target, pair.source, pair.images, CONFIG, cancelled=stop, checkpoints=kept)
    left = 0

    def count() -> bool:
        nonlocal left
        left += 1
        return False

    torch.manual_seed(99)
    again = clone(pair.target, pair.source, pair.images, CONFIG, cancelled=count, checkpoints=kept)
    assert digest(again.to_bytes()) == digest(bundle.to_bytes())
    assert share < 0.2 or left < asked


def test_a_job_that_is_stopped_again_and_again_ends_in_the_same_bundle(
    pair: Pair, undisturbed: tuple[Bundle, int], tmp_path: Path
) -> None:
    bundle, asked = undisturbed
    kept, stops = FolderCheckpoints(tmp_path), 0
    while True:
        stop = _stop_after(asked // 2)
        try:
            again = clone(pair.target, pair.source, pair.images, CONFIG, cancelled=stop, checkpoints=kept)
        except Cancelled:
            stops += 1
            assert stops < 20, "it makes no headway"
        else:
            break
    assert stops >= 2
    assert digest(again.to_bytes()) == digest(bundle.to_bytes())


def test_what_another_job_has_kept_is_refused(pair: Pair, tmp_path: Path) -> None:
    config, kept = dataclasses.replace(CONFIG, refine=0, epochs=1), FolderCheckpoints(tmp_path)
    clone(pair.target, pair.source, pair.images, config, checkpoints=kept)
    with pytest.raises(ConfigError, match="with other config;"):
        clone(pair.target, pair.source, pair.images, dataclasses.replace(config, seed=1), checkpoints=kept)
    with pytest.raises(ConfigError, match="with other images, labels;"):
        clone(pair.target, pair.source, pair.images.sample(300, torch.Generator()), config, checkpoints=kept)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = State({"lr": 0.1 + 0.2, "betas": [0.9, 0.999]}, {"x": torch.randn(3, 4).T, "n": torch.tensor(7)})
    path = tmp_path / "state"
    path.write_bytes(state.to_bytes())
    read = State.read(path)
    assert read.facts == state.facts
    assert all(torch.equal(tensor, read.tensors[name]) for name, tensor in state.tensors.items())


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(State({}, {"x": torch.ones(10)}).to_bytes()[:-4])
    with pytest.raises(TensorFileError):
        State.read(path)
