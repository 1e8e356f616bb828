import torch

from pnc_core.method.heads.choose import HeadChoice, choose_head, not_worse
from tests.unit.pnc_core.method.heads.inputs import FEATURES, inputs


def _choices(kinds: tuple[str, ...], gap: float) -> list[HeadChoice]:
    return [HeadChoice(kind, 1, inputs(300, gap=gap), inputs(300, seed=1, gap=gap)) for kind in kinds]


def test_the_first_wins_between_equals() -> None:
    rows = inputs()
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


def test_the_number_of_a_head_s_numbers_is_counted() -> None:
    rows = inputs(20)
    sizes = [HeadChoice(kind, 1, rows, rows).cost.parameter_count for kind in ("affine", "router", "joint")]
    assert sizes == [2, 2 + FEATURES + 1, 2 + 5 * (FEATURES + 1)]


def test_not_worse_allows_one_standard_error() -> None:
    best = torch.zeros(100)
    noise = torch.linspace(-1, 1, 100)
    error = float(noise.std()) / 10
    assert not_worse(best, best)
    assert not_worse(noise + 0.9 * error, best)
    assert not not_worse(noise + 1.1 * error, best)
