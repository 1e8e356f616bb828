import math

import pytest
import torch

from pnc_core.method.thresholds import CLEAR, bar_below


@pytest.mark.parametrize("share", [0.0, 0.02, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 11, 51, 100, 101])
def test_a_bar_is_where_the_quantile_is_and_on_no_value(count: int, share: float) -> None:
    values = 5 * torch.rand(count, generator=torch.Generator().manual_seed(count))
    bar, ordered = bar_below(values, share), values.sort().values
    index = math.ceil(share * (count - 1))
    assert int((values > bar).sum()) == count - index
    assert float((values - bar).abs().min()) > 0.4 * CLEAR
    if index:
        assert float(bar) == pytest.approx(float(ordered[index - 1] + ordered[index]) / 2)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_bar_is_not_put_between_equal_values(size: float) -> None:
    """The same image twice, whose values another processor may round apart."""
    values = size * torch.tensor([1.0, 2.0, 2.0, 2.0000002, 3.0])
    bar = bar_below(values, 0.5)
    assert int((values > bar).sum()) == 4
    assert float((values - bar).abs().min()) > 0.4 * size
    alone = torch.full((7,), size)
    assert int((alone > bar_below(alone, 0.5)).sum()) == 7
