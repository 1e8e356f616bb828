import pytest
import torch

from pnc_core.method.heads.fit import HeadInputs, accuracy, balanced_losses, fit_head, head_logits, prepared
from pnc_core.module.head import Head, pool_taps, tap_width
from tests.unit.pnc_core.method.heads.inputs import FEATURES, NEW, OLD, inputs


def _random_head(kind: str) -> Head:
    head = Head(kind, FEATURES, OLD, NEW)
    generator = torch.Generator().manual_seed(1)
    for tensor in head.parameters():
        tensor.data.add_(torch.randn(tensor.shape, generator=generator).abs())
    return head.requires_grad_(False)


@pytest.mark.parametrize("kind", ["affine", "router"])
def test_the_old_logits_are_handed_on_as_the_very_same_tensor(kind: str) -> None:
    rows = inputs()
    old, new = _random_head(kind)(rows.old, rows.own, rows.features)
    assert old is rows.old
    assert new.shape == (200, NEW)


@pytest.mark.parametrize("kind", ["affine", "router"])
def test_the_order_inside_the_new_classes_never_changes(kind: str) -> None:
    rows = inputs()
    _, new = _random_head(kind)(rows.old, rows.own, rows.features)
    assert torch.equal(new.argsort(1), rows.own.argsort(1))


def test_a_router_lifts_all_new_logits_of_an_image_by_the_same() -> None:
    rows, head = inputs(), _random_head("router")
    _, new = head(rows.old, rows.own, rows.features)
    lift = new - rows.own * head.scale
    assert torch.allclose(lift[:, 0], lift[:, 1], atol=1e-3)
    assert float(lift[:, 0].std()) > 1


def test_a_joint_head_changes_old_logits_too() -> None:
    rows, head = inputs(), _random_head("joint")
    old, new = head(rows.old, rows.own, rows.features)
    correction = rows.features @ head.weight.T + head.bias
    assert torch.allclose(old, rows.old + correction[:, :OLD])
    assert torch.allclose(new, rows.own * head.scale + head.offset + correction[:, OLD:])


@pytest.mark.parametrize("kind", ["affine", "router", "joint"])
def test_a_fresh_head_changes_nothing(kind: str) -> None:
    rows = inputs()
    head = Head(kind, FEATURES, OLD, NEW)
    old, new = head(rows.old, rows.own, rows.features)
    assert torch.equal(old, rows.old)
    assert torch.equal(new, rows.own)


def test_an_affine_head_finds_a_planted_offset() -> None:
    rows = inputs(2000, confused=False)
    clean = HeadInputs(rows.old, rows.own / 2 - 7, rows.features, rows.labels)
    head = fit_head("affine", clean)
    shifted = fit_head("affine", HeadInputs(rows.old, clean.own - 4, rows.features, rows.labels))
    assert float(shifted.scale) == pytest.approx(float(head.scale), rel=1e-2)
    assert float(shifted.offset) == pytest.approx(float(head.offset + 4 * head.scale), rel=1e-2)


@pytest.mark.parametrize("kind", ["router", "joint"])
def test_taps_that_tell_old_from_new_are_used(kind: str) -> None:
    train, held = inputs(400), inputs(400, seed=1)
    plain = accuracy(head_logits(fit_head("affine", train), held), held.labels, OLD).average
    better = accuracy(head_logits(fit_head(kind, train), held), held.labels, OLD).average
    assert better > 0.9 > plain + 0.05


def test_a_joint_head_finds_a_shift_of_one_class() -> None:
    rows = inputs(600)
    old = rows.old.clone()
    old[:, 1] -= 2 * rows.features[:, 2]
    head = fit_head("joint", HeadInputs(old, rows.own, rows.features, rows.labels), 1e-4)
    assert float(head.weight[1, 2] - head.weight[[0, 2], 2].mean()) > 1
    found = accuracy(head_logits(head, HeadInputs(old, rows.own, rows.features, rows.labels)), rows.labels, OLD)
    assert found.average > 0.95


@pytest.mark.parametrize("kind", ["router", "joint"])
def test_the_standardisation_is_folded_into_the_weights(kind: str) -> None:
    rows = inputs()
    features = rows.features.double()
    mean, std = features.mean(0), features.std(0)
    by_hand = HeadInputs(rows.old, rows.own, ((features - mean) / std).float(), rows.labels)
    folded, explicit = fit_head(kind, rows), fit_head(kind, by_hand)
    assert torch.allclose(head_logits(folded, rows), head_logits(explicit, by_hand), atol=1e-2)
    assert torch.allclose(folded.weight * std.float(), explicit.weight, atol=1e-2)


@pytest.mark.parametrize("count", [20, 300])
@pytest.mark.parametrize("kind", ["affine", "router", "joint"])
def test_prepared_rows_and_another_start_give_the_same_head(kind: str, count: int) -> None:
    few = inputs(count)
    rows = HeadInputs(few.old, few.own, torch.cat([few.features, few.features**2, few.features**3], 1), few.labels)
    plain, ready = fit_head(kind, rows, 1e-1), prepared(rows)
    for start in (None, fit_head(kind, rows, 1.0)):
        again = fit_head(kind, ready, 1e-1, start)
        assert torch.allclose(head_logits(again, rows), head_logits(plain, rows), atol=1e-3)


@pytest.mark.parametrize("count", [20, 300])
def test_a_head_that_starts_at_its_own_minimum_stays_there(count: int) -> None:
    rows = inputs(count)
    plain = fit_head("joint", rows, 1e-1)
    stays = fit_head("joint", rows, 1e-1, plain, most_steps=1)
    assert torch.allclose(head_logits(stays, rows), head_logits(plain, rows), atol=1e-4)
    assert not torch.allclose(head_logits(fit_head("joint", rows, 1e-1, most_steps=1), rows), head_logits(plain, rows))


def test_a_tap_that_never_changes_does_no_harm() -> None:
    rows = inputs()
    rows.features[:, 3] = 7
    assert all(torch.isfinite(p).all() for p in fit_head("joint", rows).parameters())


def test_old_and_new_weigh_half_each() -> None:
    rows = inputs(300)
    few = torch.cat([torch.nonzero(rows.labels < OLD).flatten(), torch.nonzero(rows.labels >= OLD).flatten()[:5]])
    part = HeadInputs(*(t[few] for t in vars(rows).values()))
    losses = balanced_losses(_random_head("affine"), part)
    plain = torch.nn.functional.cross_entropy(head_logits(_random_head("affine"), part), part.labels, reduction="none")
    is_new = part.labels >= OLD
    assert float(losses.mean()) == pytest.approx(float(plain[is_new].mean() + plain[~is_new].mean()) / 2, rel=1e-5)


def test_fitting_is_deterministic() -> None:
    one, two = fit_head("joint", inputs()), fit_head("joint", inputs())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_accuracy_judges_both_sides_over_all_classes() -> None:
    logits = torch.eye(5)[[0, 1, 3, 3, 4, 0]]
    found = accuracy(logits, torch.tensor([0, 1, 2, 3, 4, 4]), OLD)
    assert (found.old, found.new) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.average == pytest.approx(2 / 3)


def test_taps_are_pooled_to_the_grid_and_joined() -> None:
    maps, last, tokens = torch.rand(2, 3, 4, 4), torch.rand(2, 1, 1, 5), torch.rand(2, 7, 6)
    pooled = pool_taps([maps, last, tokens], [1, 3, 2], 2)
    assert pooled.shape == (2, 3 * 5 + 5 + 2 * 6)
    assert torch.allclose(pooled[:, 0], maps[:, 0, :2, :2].mean((1, 2)))
    assert torch.allclose(pooled[:, 12:15], maps.flatten(2).std(2, correction=0), atol=1e-4)
    assert torch.equal(pooled[:, 15:20], last.flatten(1))
    assert torch.allclose(pooled[:, 20:26], tokens.mean(1))
    assert torch.allclose(pooled[:, 26:], tokens.std(1, correction=0), atol=1e-4)
    widths = [tap_width(3, (4, 4), 2), tap_width(5, (1, 1), 2), tap_width(6, (7,), 2)]
    assert widths == [15, 5, 12]
