import pytest
import torch
from torch.nn import functional as F

from pnc_core.config import CloneConfig, Position
from pnc_core.errors import PositionError
from pnc_core.identity import fingerprint
from pnc_core.method.insert import Insertion, localize, stitch
from pnc_core.method.job import Job
from pnc_core.method.learn import match_features
from pnc_core.module.tail import copied_tensors
from tests.unit.pnc_core import nets
from tests.unit.pnc_core.conftest import Pair

MIDDLE = Position(target="blocks.1", source="blocks.1")
INPUT = Position(target="input", source="input")


@pytest.fixture(scope="module")
def job(pair: Pair) -> Job:
    config = CloneConfig(classes=("9", "7"), batch_size=64, keep=0.4, views=2)
    return nets.job(pair.target, pair.source, pair.images, config)


def test_at_the_input_the_uncut_module_is_the_source_itself(job: Job) -> None:
    insertion = stitch(job, INPUT, job.train)
    batch = next(job.read(job.train))
    with torch.no_grad():
        logits, taps = insertion.forward(batch)
    assert torch.allclose(logits, batch.own, atol=1e-4)
    for name, tap in zip(insertion.tail.taps, taps, strict=True):
        assert torch.allclose(tap, batch.source[name], atol=1e-4)


def test_stitching_fits_the_adapter_to_the_source_s_activation(job: Job) -> None:
    insertion = stitch(job, MIDDLE, job.train)
    batch = next(job.read(job.train))
    wanted, got = batch.source["blocks.1"], insertion.adapter(batch.target["blocks.1"]).detach()
    assert insertion.adapter.relu
    assert float(F.mse_loss(got, wanted)) < 0.8 * float(wanted.var())
    assert insertion.whole == insertion.tail.parameter_count


def test_a_position_that_is_not_one_is_refused(job: Job) -> None:
    for position in (Position(target="nope", source="blocks.1"), Position(target="blocks.1", source="nope")):
        with pytest.raises(PositionError, match="nope"):
            stitch(job, position, job.train)


def test_localization_keeps_the_budget_and_copies_of_the_source(job: Job, pair: Pair) -> None:
    whole = stitch(job, MIDDLE, job.train)
    small = localize(job, whole)
    assert 0.3 * whole.whole < small.tail.parameter_count <= 0.4 * whole.whole
    state = pair.source[0].state_dict()
    kept = small.tail.kept["blocks.2.0"]
    assert torch.equal(copied_tensors(small.tail)["blocks.2.0.weight"], state["blocks.2.0.weight"][kept])
    assert whole.tail.parameter_count == whole.whole


def _mismatch(job: Job, insertion: Insertion) -> float:
    with torch.no_grad():
        return sum(float((insertion.forward(batch)[0] - batch.own).square().sum()) for batch in job.read(job.train))


def test_matching_lowers_the_mismatch_and_changes_only_adapter_and_calibration(job: Job, pair: Pair) -> None:
    insertion = localize(job, stitch(job, MIDDLE, job.train))
    copies = {n: t.clone() for n, t in copied_tensors(insertion.tail).items()}
    before, mismatch = [p.detach().clone() for p in insertion.parameters()], _mismatch(job, insertion)
    shares: list[float] = []
    match_features(job, insertion, 10, "round 1", lambda share, loss: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert _mismatch(job, insertion) < mismatch
    assert all(torch.equal(tensor, copies[n]) for n, tensor in copied_tensors(insertion.tail).items())
    assert all(not torch.equal(a, b) for a, b in zip(before, insertion.parameters(), strict=True))


def test_matching_is_deterministic_by_seed_and_round(job: Job) -> None:
    found = []
    for name in ("round 1", "round 1", "round 2"):
        insertion = stitch(job, MIDDLE, job.train)
        match_features(job, insertion, 1, name, lambda share, loss: None)
        found.append(insertion.adapter.weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_nothing_of_it_changes_the_networks(job: Job, pair: Pair, fingerprints: tuple[str, str]) -> None:
    match_features(job, localize(job, stitch(job, INPUT, job.train)), 1, "x", lambda share, loss: None)
    assert (fingerprint(pair.target[0]), fingerprint(pair.source[0])) == fingerprints
    assert all(p.grad is None for p in pair.source[0].parameters())
