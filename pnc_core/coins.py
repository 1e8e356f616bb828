"""Tosses of a fair coin: what to expect where there are two sides and no preference."""

import math


def at_least(heads: int, tosses: int) -> float:
    """How likely so many heads or more are, exactly: the upper tail of a binomial distribution."""
    ways = few = math.comb(tosses, heads)
    for k in range(heads, tosses):  # each from the one before: from nothing every time, 24,000 tosses take minutes
        few = few * (tosses - k) // (k + 1)
        ways += few
    return ways / (1 << tosses)
