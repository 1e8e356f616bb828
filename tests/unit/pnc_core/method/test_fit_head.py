import math

import pytest
import torch

from pnc_core.method.fit_head import (
    HeadChoice,
    HeadInputs,
    accuracy,
    balanced_losses,
    choose_head,
    fit_head,
    head_logits,
    not_worse,
    shut,
)
from pnc_core.module.head import Head, pool_taps, tap_width

OLD, NEW, FEATURES = 3, 2, 6


def _inputs(count: int = 200, seed: int = 0, gap: float = 3.0, confused: bool = True) -> HeadInputs:
    """Every side knows its own classes and is as sure of the other's; only the first tap tells them apart, by `gap`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, OLD + NEW, (count,), generator=generator)
    logits = torch.randn(count, OLD + NEW, generator=generator)
    logits[torch.arange(count), labels] += 6
    features = 10 + 4 * torch.randn(count, FEATURES, generator=generator)
    features[:, 0] = 5 + gap * (labels >= OLD) + 0.1 * torch.randn(count, generator=generator)
    old, own = logits[:, :OLD], logits[:, OLD:]
    if confused:
        rows, is_old = torch.arange(count), labels < OLD
        own[rows[is_old], torch.randint(0, NEW, (int(is_old.sum()),), generator=generator)] += 6
        old[rows[~is_old], torch.randint(0, OLD, (int((~is_old).sum()),), generator=generator)] += 6
    return HeadInputs(old, own, features, labels)


def _random_head(kind: str) -> Head:
    head = Head(kind, FEATURES, OLD, NEW)
    generator = torch.Generator().manual_seed(1)
    for tensor in head.parameters():
        tensor.data.add_(torch.randn(tensor.shape, generator=generator).abs())
    return head.requires_grad_(False)


@pytest.mark.parametrize("kind", ["affine", "router"])
def test_the_old_logits_are_handed_on_as_the_very_same_tensor(kind: str) -> None:
    rows = _inputs()
    old, new = _random_head(kind)(rows.old, rows.own, rows.features)
    assert old is rows.old
    assert new.shape == (200, NEW)


@pytest.mark.parametrize("kind", ["affine", "router"])
def test_the_order_inside_the_new_classes_never_changes(kind: str) -> None:
    rows = _inputs()
    _, new = _random_head(kind)(rows.old, rows.own, rows.features)
    assert torch.equal(new.argsort(1), rows.own.argsort(1))


def test_a_router_lifts_all_new_logits_of_an_image_by_the_same() -> None:
    rows, head = _inputs(), _random_head("router")
    _, new = head(rows.old, rows.own, rows.features)
    lift = new - rows.own * head.scale
    assert torch.allclose(lift[:, 0], lift[:, 1], atol=1e-3)
    assert float(lift[:, 0].std()) > 1


def test_a_joint_head_changes_old_logits_too() -> None:
    rows, head = _inputs(), _random_head("joint")
    old, new = head(rows.old, rows.own, rows.features)
    correction = rows.features @ head.weight.T + head.bias
    assert torch.allclose(old, rows.old + correction[:, :OLD])
    assert torch.allclose(new, rows.own * head.scale + head.offset + correction[:, OLD:])


@pytest.mark.parametrize("kind", ["affine", "router", "joint"])
def test_a_fresh_head_changes_nothing(kind: str) -> None:
    rows = _inputs()
    head = Head(kind, FEATURES, OLD, NEW)
    old, new = head(rows.old, rows.own, rows.features)
    assert torch.equal(old, rows.old)
    assert torch.equal(new, rows.own)


def test_an_affine_head_finds_a_planted_offset() -> None:
    rows = _inputs(2000, confused=False)
    clean = HeadInputs(rows.old, rows.own / 2 - 7, rows.features, rows.labels)
    head = fit_head("affine", clean)
    shifted = fit_head("affine", HeadInputs(rows.old, clean.own - 4, rows.features, rows.labels))
    assert float(shifted.scale) == pytest.approx(float(head.scale), rel=1e-2)
    assert float(shifted.offset) == pytest.approx(float(head.offset + 4 * head.scale), rel=1e-2)


@pytest.mark.parametrize("kind", ["router", "joint"])
def test_taps_that_tell_old_from_new_are_used(kind: str) -> None:
    train, held = _inputs(400), _inputs(400, seed=1)
    plain = accuracy(head_logits(fit_head("affine", train), held), held.labels, OLD).average
    better = accuracy(head_logits(fit_head(kind, train), held), held.labels, OLD).average
    assert better > 0.9 > plain + 0.05


def test_a_joint_head_finds_a_shift_of_one_class() -> None:
    rows = _inputs(600)
    old = rows.old.clone()
    old[:, 1] -= 2 * rows.features[:, 2]
    head = fit_head("joint", HeadInputs(old, rows.own, rows.features, rows.labels), 1e-4)
    assert float(head.weight[1, 2] - head.weight[[0, 2], 2].mean()) > 1
    found = accuracy(head_logits(head, HeadInputs(old, rows.own, rows.features, rows.labels)), rows.labels, OLD)
    assert found.average > 0.95


@pytest.mark.parametrize("kind", ["router", "joint"])
def test_the_standardisation_is_folded_into_the_weights(kind: str) -> None:
    rows = _inputs()
    features = rows.features.double()
    mean, std = features.mean(0), features.std(0)
    by_hand = HeadInputs(rows.old, rows.own, ((features - mean) / std).float(), rows.labels)
    folded, explicit = fit_head(kind, rows), fit_head(kind, by_hand)
    assert torch.allclose(head_logits(folded, rows), head_logits(explicit, by_hand), atol=1e-2)
    assert torch.allclose(folded.weight * std.float(), explicit.weight, atol=1e-2)


def test_a_tap_that_never_changes_does_no_harm() -> None:
    rows = _inputs()
    rows.features[:, 3] = 7
    assert all(torch.isfinite(p).all() for p in fit_head("joint", rows).parameters())


def test_old_and_new_weigh_half_each() -> None:
    rows = _inputs(300)
    few = torch.cat([torch.nonzero(rows.labels < OLD).flatten(), torch.nonzero(rows.labels >= OLD).flatten()[:5]])
    part = HeadInputs(*(t[few] for t in vars(rows).values()))
    losses = balanced_losses(_random_head("affine"), part)
    plain = torch.nn.functional.cross_entropy(head_logits(_random_head("affine"), part), part.labels, reduction="none")
    is_new = part.labels >= OLD
    assert float(losses.mean()) == pytest.approx(float(plain[is_new].mean() + plain[~is_new].mean()) / 2, rel=1e-5)


def test_fitting_is_deterministic() -> None:
    one, two = fit_head("joint", _inputs()), fit_head("joint", _inputs())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def _choices(kinds: tuple[str, ...], gap: float) -> list[HeadChoice]:
    return [HeadChoice(kind, 1, _inputs(300, gap=gap), _inputs(300, seed=1, gap=gap)) for kind in kinds]


def test_the_first_wins_between_equals() -> None:
    rows = _inputs()
    one, two = (HeadChoice("affine", grid, rows, rows) for grid in (1, 2))
    assert choose_head([one, two]).grid == 1
    assert choose_head([two, one]).grid == 2


def test_taps_that_tell_nothing_do_not_help_a_larger_head() -> None:
    assert choose_head(_choices(("affine", "joint"), 0)).head.kind == "affine"


def test_a_better_head_wins_over_a_simpler_one() -> None:
    fitted = choose_head(_choices(("affine", "router"), 3))
    assert fitted.head.kind == "router"
    assert fitted.score.average > 0.95
    assert fitted.grid == 1


def test_the_score_behind_a_shutter_is_of_what_has_not_seen_the_held_out_images() -> None:
    noise = _noise(24, 0), _noise(24, 1)
    fitted = choose_head([HeadChoice("router", 1, *noise)])
    again = accuracy(head_logits(fitted.head, noise[1]), noise[1].labels, OLD)
    strict = shut(fitted, *noise, seen=30)
    assert again.average > fitted.score.average + 0.2  # refitted on them it has learned them by heart
    assert strict.head.strict
    assert strict.score.average <= fitted.score.average
    assert torch.equal(strict.head.weight, fitted.head.weight)
    assert torch.equal(strict.judged.shutter_weight, strict.head.shutter_weight)


def _noise(count: int, seed: int) -> HeadInputs:
    """Both sides are as sure of any image, and the taps have nothing to do with which side it is of."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % (OLD + NEW)
    logits = torch.nn.functional.one_hot(labels, OLD + NEW).float() * 6
    logits[labels < OLD, OLD], logits[labels >= OLD, 0] = 6, 6
    return HeadInputs(logits[:, :OLD], logits[:, OLD:], torch.randn(count, 60, generator=generator), labels)


@pytest.mark.parametrize("count", [5, 10, 130, 255])
def test_no_held_out_image_is_on_the_bar_of_a_shutter(count: int) -> None:
    """A job of a few images holds one new image out: a bar on it would be decided by the processor's rounding."""
    train, held = _inputs(300), _inputs(count, seed=1)
    strict = shut(choose_head([HeadChoice("router", 1, train, held)]), train, held, seen=FEATURES)
    new = held.features[held.labels >= OLD].double()
    weight = strict.head.shutter_weight.double()
    verdict = new @ weight + strict.head.shutter_bias.double()
    rounding = FEATURES * torch.finfo().eps * float((new.abs() @ weight.abs()).max())
    assert float(verdict.abs().min()) > 5 * rounding
    assert int((verdict < 0).sum()) <= math.ceil(0.02 * len(new))


def test_not_worse_allows_one_standard_error() -> None:
    best = torch.zeros(100)
    noise = torch.linspace(-1, 1, 100)
    error = float(noise.std()) / 10
    assert not_worse(best, best)
    assert not_worse(noise + 0.9 * error, best)
    assert not not_worse(noise + 1.1 * error, best)


def test_accuracy_judges_both_sides_over_all_classes() -> None:
    logits = torch.eye(5)[[0, 1, 3, 3, 4, 0]]
    found = accuracy(logits, torch.tensor([0, 1, 2, 3, 4, 4]), OLD)
    assert (found.old, found.new) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found.average == pytest.approx(2 / 3)


def test_the_number_of_a_head_s_numbers_is_counted() -> None:
    rows = _inputs(20)
    sizes = [HeadChoice(kind, 1, rows, rows).cost.parameter_count for kind in ("affine", "router", "joint")]
    assert sizes == [2, 2 + FEATURES + 1, 2 + 5 * (FEATURES + 1)]


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
