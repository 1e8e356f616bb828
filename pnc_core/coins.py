"""Tosses of a fair coin: what to expect where there are two sides and no preference."""

import math


def at_least(heads: int, tosses: int) -> float:
    """How likely so many heads or more are, exactly: the upper tail of a binomial distribution."""
    ways = sum(math.comb(tosses, k) for k in range(heads, tosses + 1))
    return ways / (1 << tosses)
