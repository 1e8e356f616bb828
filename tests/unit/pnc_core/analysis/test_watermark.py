import dataclasses
import hashlib
import math
import time
from pathlib import Path

import pytest
import torch
from scipy.special import bdtrc

from pnc_core.analysis.evidence import verify_bundle
from pnc_core.analysis.origin import origin
from pnc_core.analysis.watermark import PROVED, binomial_tail, proof_in_bundle, proof_in_origin
from pnc_core.config import CloneConfig, Position
from pnc_core.errors import ConfigError
from pnc_core.method.checkpoints import FolderCheckpoints
from pnc_core.method.clone import clone
from pnc_core.method.localize import score_channels
from pnc_core.method.mask import LearnedMask, choose_channels
from pnc_core.module.bundle import MODULE_PREFIX, Bundle
from pnc_core.module.watermark import BIAS_STRENGTH, Mark
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair


def _mark(name: str) -> Mark:
    return Mark(hashlib.sha256(name.encode()).digest())


@pytest.fixture(scope="module")
def quick() -> CloneConfig:
    position = Position(target="blocks.1", source="blocks.1")
    return CloneConfig(classes=("9", "7"), preset="fast", views=1, batch_size=64, keep=0.4, position=position)


@pytest.fixture(scope="module")
def marked(pair: Pair, quick: CloneConfig) -> Bundle:
    return clone(pair.target, pair.source, pair.images, quick, mark=_mark("own"))


def test_the_key_has_a_say_and_copies_stay_the_source_s(pair: Pair, quick: CloneConfig, marked: Bundle) -> None:
    plain = clone(pair.target, pair.source, pair.images, quick)
    assert {n for n in plain.tensors if n.startswith("kept.")} == {n for n in marked.tensors if n.startswith("kept.")}
    own, without = proof_in_bundle(_mark("own"), marked), proof_in_bundle(_mark("own"), plain)
    assert own.channels == without.channels == 16 + 32
    assert own.agreeing > without.agreeing
    assert verify_bundle(marked, pair.source[0]).numbers == marked.manifest.sizes.module


def test_the_manifest_does_not_tell(pair: Pair, quick: CloneConfig, marked: Bundle) -> None:
    assert marked.manifest.config == quick
    assert _mark("own").key.hex() not in marked.to_bytes().decode("latin-1")
    assert "key" not in repr(_mark("own"))


def test_equal_keys_give_equal_bytes(pair: Pair, quick: CloneConfig, marked: Bundle) -> None:
    again = clone(pair.target, pair.source, pair.images, quick, mark=_mark("own"))
    assert again.to_bytes() == marked.to_bytes()


def test_other_keys_agree_as_often_as_coins(marked: Bundle) -> None:
    found = [proof_in_bundle(_mark(f"stranger {i}"), marked) for i in range(12)]
    share = sum(f.agreeing for f in found) / sum(f.channels for f in found)
    assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(12 * 48))  # four standard errors
    assert min(f.p_value for f in found) > PROVED


def test_slices_without_their_bundle_prove_the_mark(pair: Pair, marked: Bundle) -> None:
    generator = torch.Generator().manual_seed(0)
    slices = {n.removeprefix(MODULE_PREFIX): t for n, t in marked.tensors.items() if n.startswith(MODULE_PREFIX)}
    noisy = {
        n: (t + 0.1 * t.std() * torch.randn(t.shape, generator=generator)).half() if t.ndim > 1 else t
        for n, t in slices.items()
    }
    found = proof_in_origin(_mark("own"), origin(noisy, pair.source[0].state_dict()))
    assert found == proof_in_bundle(_mark("own"), marked)


def test_the_key_decides_where_worths_are_close_and_a_learned_mask_begins_there() -> None:
    tail = nets.opened("cnn", 8, 1, width=16)[0]
    scores = score_channels(tail, [], "random", torch.Generator().manual_seed(0))
    agreeing = channels = 0
    for i in range(20):
        mark = _mark(f"key {i}")
        kept = choose_channels(tail, scores, 0.4, mark.importance_bias(tail.groups))
        begun = LearnedMask(tail, scores, 0.4, mark.importance_bias(tail.groups)).kept()
        assert all(torch.equal(begun[name], chosen) for name, chosen in kept.items())
        for group in tail.groups:
            chosen = torch.zeros(group.width).bool().index_fill(0, kept[group.name], True)
            agreeing += int((chosen == mark.bits(group.name, group.width)).sum())
            channels += group.width
    assert agreeing / channels == pytest.approx(
        0.5 + BIAS_STRENGTH / 2, abs=4 * 0.5 / math.sqrt(channels)
    )  # four standard errors


def test_a_learned_mask_goes_on_leaning(pair: Pair, quick: CloneConfig) -> None:
    config = dataclasses.replace(quick, preset="joint", epochs=3)
    plain, marked = (clone(pair.target, pair.source, pair.images, config, mark=m) for m in (None, _mark("own")))
    assert proof_in_bundle(_mark("own"), marked).agreeing > proof_in_bundle(_mark("own"), plain).agreeing


def test_what_is_kept_whole_says_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    source = {"a": torch.randn(16, 16, 3, 3, generator=generator)}
    found = proof_in_origin(_mark("own"), origin(source, source))
    assert (found.channels, found.agreeing, found.p_value, found.proved) == (0, 0, 1.0, False)


def test_coins_are_counted_exactly() -> None:
    assert binomial_tail(0, 0) == binomial_tail(0, 10) == 1
    assert binomial_tail(10, 10) == 2**-10
    assert binomial_tail(2, 3) == 0.5
    assert binomial_tail(1100, 2000) == pytest.approx(bdtrc(1099, 2000, 0.5), rel=1e-6)
    began = time.process_time()
    assert binomial_tail(12_200, 24_000) == pytest.approx(bdtrc(12_199, 24_000, 0.5), rel=1e-6)
    assert time.process_time() - began < 5  # ResNet-152 has this many channels


def test_a_key_of_another_size_and_checkpoints_are_refused(pair: Pair, quick: CloneConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a key of 32 bytes, got 3"):
        Mark(b"abc")
    with pytest.raises(ConfigError, match="no checkpoints beside a mark"):
        clone(
            pair.target,
            pair.source,
            pair.images,
            quick,
            mark=_mark("own"),
            checkpoints=FolderCheckpoints(tmp_path),
        )
