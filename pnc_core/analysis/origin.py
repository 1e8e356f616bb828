"""Find filters of a source network in a suspect network, also after their channels were permuted and rescaled.

Only weights are compared, layer by layer; no network runs. The search ignores changes that do not change a network's
logits: the order of channels (rows of one layer, columns of the next), and their scales (batch norm compensates a row's
scale and sign; ReLU passes a positive scale on to the next layer's column). Rows and columns are matched in turns, by
linear assignment on absolute cosines:

    match = argmax over assignments pi of s(pi),    s(pi) = mean_i |cos(a_i, b_pi(i))|

The test statistic is the lead of the match over the runner-up, the best assignment that uses none of its pairs:

    lead = s(match) - s(runner-up)

Common types of filters (smooth filters, edges) raise both terms alike. The null distribution of the lead comes from
`SHUFFLED` shuffled sources, in which every filter's input channels are permuted at random. A t-test gives the p-value.

References:
    Own choice. That networks are equal but for the order of their channels, and that assignment finds
    it, is known (Ainsworth et al., "Git Re-Basin", ICLR 2023).
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pnc_core.errors import ConfigError, DataError

SHUFFLED = 19
"""Number of shuffled sources for the null distribution."""
TURNS = 4
"""Largest number of turns of rows and columns per start."""
BALANCINGS = 4
"""Rounds of scaling rows and columns to about equal norms."""
LEAST = 4
"""Smallest number of rows and of columns; smaller layers hold too little evidence and are skipped."""
LARGEST_KERNEL = 49
"""Largest number of places of a kernel for the products of `_kinds`; larger kernels use `QUANTILES`."""
QUANTILES = 16
"""Number of quantiles of the column norms, as features of a filter."""
TINY = 1e-20
"""Smallest divisor, against division by zero."""
ORDERS = 4
"""Largest number of orders from earlier layers as starting points of a matrix."""
FOUND = 1e-3
"""Largest p-value that counts as found."""
Match = tuple[Tensor, Tensor]
"""int64 indices of matched pairs: in the suspect, and in the source."""


@dataclass(frozen=True)
class LayerOrigin:
    """A layer of the suspect, and the layer of the source with the largest lead."""

    layer: str
    """Name of the suspect's tensor."""
    source_layer: str
    """Name of the source's tensor."""
    width: int
    """Number of the source layer's output channels."""
    rows: tuple[int | None, ...]
    """By output channel of the suspect: its channel in the source, or None if a shuffled source matches as well."""
    similarity: float
    """Mean absolute cosine of the match: 1 for filters that are equal up to order, scale and sign."""
    runner_up: float
    """Mean absolute cosine of the runner-up."""
    by_chance: float
    """Mean lead of shuffled sources; the layer's own lead is `similarity - runner_up`."""
    p_value: float
    """P-value of the lead (Student's t, against shuffled sources), times the number of compared source layers."""

    @property
    def matched(self) -> int:
        """Number of channels that are found in the source."""
        return sum(row is not None for row in self.rows)


@dataclass(frozen=True)
class Origin:
    """Filters of a source that were found in a suspect."""

    layers: tuple[LayerOrigin, ...]
    """The compared layers, in the suspect's order."""
    p_value: float
    """Smallest p-value of a layer, times the number of layers (Bonferroni)."""

    @property
    def found(self) -> bool:
        """Does the suspect hold filters of the source, with p below `FOUND`?"""
        return self.p_value < FOUND

    @property
    def channels(self) -> int:
        """Number of output channels of all compared layers."""
        return sum(len(layer.rows) for layer in self.layers)

    @property
    def matched(self) -> int:
        """Number of channels that are found in the source."""
        return sum(layer.matched for layer in self.layers)


def origin(
    suspect: Mapping[str, Tensor], source: Mapping[str, Tensor], *, any_layer: bool = False, seed: int = 0
) -> Origin:
    """Search for filters of a source in a suspect; neither is changed.

    If the source has all layer names of the suspect, layers of equal names are compared. Otherwise every layer of the
    suspect is compared with every layer of the source of equal kernel size, and the largest lead counts.

    Args:
        suspect: Tensors by name. Kernels (O, I, H, W) and matrices (O, I) are compared, others are ignored.
        source: The source's tensors by name.
        any_layer: Ignore names: compare every layer with every layer.
        seed: Seed of the shuffled sources.

    Raises:
        DataError: there is no layer to compare, or numbers are not finite.
        ConfigError: scipy is not installed.
    """
    theirs, own = _layers(suspect), _layers(source)
    by_name = not any_layer and theirs.keys() <= own.keys()
    pairs = {
        name: {n: w for n, w in own.items() if _comparable(weight, w) and (n == name or not by_name)}
        for name, weight in theirs.items()
    }
    judged = [name for name, candidates in pairs.items() if candidates and _says_enough(theirs[name])]
    if not judged:
        raise DataError(
            f"suspect: expected layers of {LEAST} channels or more with kernels as large as some of the source's, got "
            f"{len(theirs)} layers beside the source's {len(own)} and none that fits; compare it with another network"
        )
    search = _Search(seed)
    for name in (n for n in theirs if pairs[n] and n not in judged):
        search.look(theirs[name], pairs[name])
    # Large kernels first: they can be matched without a known order of columns, and give 1x1 layers a starting order.
    found = {n: search.judge(n, theirs[n], pairs[n]) for n in sorted(judged, key=lambda n: -theirs[n].shape[2])}
    layers = tuple(found[name] for name in judged)
    return Origin(layers, min(1.0, len(layers) * min(layer.p_value for layer in layers)))


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels and matrices by name, float32 (rows, columns, kernel places)."""
    weights = {n: t.detach().cpu().float() for n, t in tensors.items() if t.is_floating_point() and t.ndim in (2, 4)}
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise DataError(f"tensor {name!r}: expected finite numbers, got inf or nan; is the file damaged?")
    return {n: w.reshape(*w.shape[:2], -1) for n, w in weights.items() if len(w) >= LEAST}


def _says_enough(weight: Tensor) -> bool:
    """Has the layer enough columns to shuffle? Depthwise kernels and most stems only give an order of rows."""
    return weight.shape[1] >= LEAST


def _comparable(suspect: Tensor, source: Tensor) -> bool:
    if _says_enough(suspect):
        return _says_enough(source) and suspect.shape[2] == source.shape[2]
    return suspect.shape[1:] == source.shape[1:]


@dataclass(frozen=True)
class _Found:
    """A match of two layers."""

    rows: Match
    columns: Match
    best: Tensor
    """Absolute cosine of every matched row with its partner."""
    second: float
    """Mean absolute cosine of the runner-up."""

    @property
    def lead(self) -> float:
        return float(self.best.mean()) - self.second


class _Search:
    """Judges layers one by one and keeps the orders it finds: the rows of one layer are the columns of the next."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._orders: dict[tuple[int, int], list[Match]] = {}
        self._special = _scipy("special")

    def look(self, suspect: Tensor, sources: Mapping[str, Tensor]) -> None:
        """Keep the best order of rows of a layer with few columns; the columns keep their order."""
        columns = (torch.arange(suspect.shape[1]),) * 2
        found = [_match_rows(suspect, source, columns, None)[1] for source in sources.values()]
        widths = [(len(suspect), len(source)) for source in sources.values()]
        best = max(range(len(found)), key=lambda i: found[i].lead)
        self._orders.setdefault(widths[best], []).append(found[best].rows)

    def judge(self, name: str, suspect: Tensor, sources: Mapping[str, Tensor]) -> LayerOrigin:
        """Find the layer of `sources` with the largest lead, and its p-value."""
        matches = {n: self._match(suspect, source) for n, source in sources.items()}
        nearest = max(matches, key=lambda n: matches[n].lead)
        found, chance = matches[nearest], [self._match(suspect, s) for s in self._shuffled(sources[nearest])]
        p_value = min(1.0, len(sources) * self._tail(found.lead, torch.tensor([c.lead for c in chance]).double()))
        if p_value < FOUND:
            for match, side in ((found.rows, 0), (found.columns, 1)):
                self._orders.setdefault((suspect.shape[side], sources[nearest].shape[side]), []).insert(0, match)
        bound = max(float(c.best.max()) for c in chance) if p_value < FOUND else torch.inf
        partners = {
            int(i): int(j) for i, j, cosine in zip(*found.rows, found.best.tolist(), strict=True) if cosine > bound
        }
        return LayerOrigin(
            layer=name,
            source_layer=nearest,
            width=len(sources[nearest]),
            rows=tuple(partners.get(i) for i in range(len(suspect))),
            similarity=float(found.best.mean()),
            runner_up=found.second,
            by_chance=sum(c.lead for c in chance) / len(chance),
            p_value=p_value,
        )

    def _tail(self, lead: float, chance: Tensor) -> float:
        """P-value of `lead` given n leads by chance, as a draw from the same normal distribution:

        P(T_{n-1} >= (lead - mean) / (std sqrt(1 + 1/n))), with Student's T of n - 1 degrees of freedom.
        """
        spread = float(chance.std()) * (1 + 1 / len(chance)) ** 0.5
        return float(self._special.stdtr(len(chance) - 1, -(lead - float(chance.mean())) / max(spread, 1e-12)))

    def _shuffled(self, source: Tensor) -> Iterator[Tensor]:
        even = _even(source)
        for _ in range(SHUFFLED):
            order = torch.rand(even.shape[:2], generator=self._generator).argsort(1)
            yield even.gather(1, order[:, :, None].expand_as(even))

    def _match(self, suspect: Tensor, source: Tensor) -> _Found:
        turns = (found for start in self._starts(suspect, source) for found in _turns(suspect, source, start))
        return max(turns, key=lambda found: found.lead)

    def _starts(self, suspect: Tensor, source: Tensor) -> Iterator[Match]:
        """Orders of columns to start from."""
        widths = [(suspect.shape[side], source.shape[side]) for side in (0, 1)]
        if widths[1][0] == widths[1][1]:
            yield torch.arange(widths[1][0]), torch.arange(widths[1][1])
        if suspect.shape[2] == 1:
            rows, columns = (self._orders.get(width, [])[:ORDERS] for width in widths)
            yield from columns
            yield from (_columns_of_unsigned(suspect, source, match) for match in rows)
        yield _columns_of_unsigned(suspect, source, _assigned(_cosines(_kinds(suspect), _kinds(source))))


def _turns(suspect: Tensor, source: Tensor, columns: Match) -> Iterator[_Found]:
    """Match rows given columns, then columns given rows, while the lead grows."""
    rows, lead = None, -torch.inf
    for _ in range(TURNS):
        signs, found = _match_rows(suspect, source, columns, rows)
        yield found
        if found.lead <= lead:
            return
        rows, lead = found.rows, found.lead
        columns = _columns_of(suspect, source, rows, signs)


def _match_rows(suspect: Tensor, source: Tensor, columns: Match, rows: Match | None) -> tuple[Tensor, _Found]:
    """Match rows given matched columns.

    Returns:
        Signs of the matched rows' cosines, and the match. Columns are scaled by their norms over `rows`, the rows
        matched before.
    """
    left, right = suspect[:, columns[0]], source[:, columns[1]]
    # Both norms of a column are taken over matched rows only, because a slice has fewer rows than its source.
    known = (slice(None), slice(None)) if rows is None else rows
    left, right = left * _column_scale(left[known[0]]), right * _column_scale(right[known[1]])
    cosines = _cosines(left, right)
    match = _assigned(cosines.abs())
    best = cosines[match]
    others = cosines.abs().index_put(match, torch.tensor(0.0))
    return best.sign(), _Found(match, columns, best.abs(), float(others[_assigned(others)].mean()))


def _columns_of(suspect: Tensor, source: Tensor, rows: Match, signs: Tensor) -> Match:
    """Match columns given matched rows and their signs."""
    left, right = _even(suspect[rows[0]]), _even(source[rows[1]] * signs[:, None, None])
    return _assigned(_cosines(left.transpose(0, 1), right.transpose(0, 1)))


def _columns_of_unsigned(suspect: Tensor, source: Tensor, rows: Match) -> Match:
    """Match columns i, j given matched rows r of unknown sign: maximise the sum over r of (a_ri . b_rj)^2."""
    left, right = _even(suspect[rows[0]]), _even(source[rows[1]])
    if suspect.shape[2] == 1:
        return _assigned(left[:, :, 0].square().T @ right[:, :, 0].square())
    total = torch.zeros(suspect.shape[1], source.shape[1])
    for mine, theirs in zip(left, right, strict=True):
        total += (mine @ theirs.T).square()
    return _assigned(total)


def _kinds(weight: Tensor) -> Tensor:
    """Features (rows, D) of each filter that do not depend on the order of columns.

    For kernels of 2 to `LARGEST_KERNEL` places: sum over columns i of w_is w_it for all places s, t. Else: quantiles of
    the columns' norms. The features are normalised, and the mean over rows is subtracted.
    """
    even = _even(weight)
    if 1 < weight.shape[2] <= LARGEST_KERNEL:
        kinds = torch.einsum("ris,rit->rst", even, even).flatten(1)
    else:
        kinds = torch.quantile(even.norm(dim=2), torch.linspace(0, 1, QUANTILES), dim=1).T
    kinds = F.normalize(kinds, dim=1)
    return kinds - kinds.mean(0)


def _even(weight: Tensor) -> Tensor:
    """The weight scaled to rows of norm 1 and columns of about equal norm."""
    return F.normalize((weight * _column_scale(weight)).flatten(1), dim=1).reshape(weight.shape)


def _column_scale(weight: Tensor) -> Tensor:
    """Factors (1, columns, 1) of the columns that bring rows and columns to about equal norms."""
    sizes = weight.square().sum(2)
    scale = torch.ones(1, weight.shape[1])
    for _ in range(BALANCINGS):
        sizes = sizes / sizes.sum(1, keepdim=True).clamp_min(TINY)
        columns = sizes.mean(0, keepdim=True)
        columns = torch.where(columns > TINY, columns, 1.0)  # a column of zeros cannot be scaled
        sizes, scale = sizes / columns, scale / columns.sqrt()
    return scale[:, :, None]


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosines (left rows, right rows) of every left row with every right row."""
    return F.normalize(left.flatten(1), dim=1) @ F.normalize(right.flatten(1), dim=1).T


def _assigned(importance: Tensor) -> Match:
    """The assignment of the largest sum of `importance`; every row and column is used at most once."""
    mine, theirs = _scipy("optimize").linear_sum_assignment(importance.numpy(), maximize=True)
    return torch.from_numpy(mine), torch.from_numpy(theirs)


def _scipy(part: str) -> Any:
    try:
        return importlib.import_module(f"scipy.{part}")
    except ModuleNotFoundError:
        raise ConfigError("origin: expected scipy to be installed, got none; pip install 'pnc-zoo[origin]'") from None
