"""Where a network's filters come from: slices of a source are found again, also with their channels in another order.

Only weights are compared, layer by layer; nothing is run. What an owner of a network can change
without changing any answer is undone: the order of channels (rows of one layer, columns of the
next) and their sizes (batch norm makes up for a row's scale and sign, and a positive scale
passes through ReLU to the next layer's column). Rows are matched with rows by linear
assignment and columns with columns, in turns.

How alike unrelated filters become by being matched is taken from the same numbers. Each match is
compared with the *runner-up*, the best assignment in which nobody has the same partner, and the *lead* over it with
the lead that *shuffled* sources give, in which every filter's input channels are dealt out anew. Filters of
unrelated networks have types in common (smooth ones, edges); match and runner-up have them alike.

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
"""Shuffled sources that a match is compared with."""
TURNS = 4
"""Turns of rows and columns from one start, at most."""
BALANCINGS = 4
"""Rounds in which rows and columns are brought to norm 1."""
LEAST = 4
"""Layers with fewer rows or columns say too little and are left out."""
LARGEST_KERNEL = 49
"""Larger kernels are not compared before an order of their columns is known."""
QUANTILES = 16
"""Of the sizes of a filter's columns, where nothing else tells what kind it is."""
TINY = 1e-20
"""Keeps rows and columns of zeros from being divided by."""
ORDERS = 4
"""Orders found in earlier layers that a matrix starts from, at most."""
FOUND = 1e-3
"""From this p-value on nothing is claimed."""
Match = tuple[Tensor, Tensor]
"""int64: indices in the suspect, and those in the source that go with them."""


@dataclass(frozen=True)
class LayerOrigin:
    """A layer of the suspect beside the one of the source that it resembles most."""

    layer: str
    """The suspect's tensor."""
    source_layer: str
    """The source's tensor."""
    width: int
    """How many channels the source has there."""
    rows: tuple[int | None, ...]
    """The source's channel for every output channel of the suspect; None where shuffled sources do as well."""
    similarity: float
    """Mean absolute cosine between matched channels: 1 means equal up to order, scale and sign."""
    runner_up: float
    """The same of the runner-up."""
    by_chance: float
    """Mean lead that shuffled sources give, to compare `similarity - runner_up` with."""
    p_value: float
    """Of the lead, by Student's t on those of shuffled sources, times the number of layers it was picked from."""

    @property
    def matched(self) -> int:
        """Channels that the source has, too."""
        return sum(row is not None for row in self.rows)


@dataclass(frozen=True)
class Origin:
    """What a suspect shares with a source."""

    layers: tuple[LayerOrigin, ...]
    """In the suspect's order."""
    p_value: float
    """Of the clearest layer, times the number of layers (Bonferroni)."""

    @property
    def found(self) -> bool:
        """Whether filters of the source are in the suspect."""
        return self.p_value < FOUND

    @property
    def channels(self) -> int:
        """Output channels of all layers that were compared."""
        return sum(len(layer.rows) for layer in self.layers)

    @property
    def matched(self) -> int:
        """How many of these the source has, too."""
        return sum(layer.matched for layer in self.layers)


def origin(
    suspect: Mapping[str, Tensor], source: Mapping[str, Tensor], *, any_layer: bool = False, seed: int = 0
) -> Origin:
    """Look for filters of a source in a suspect; neither is changed.

    If the source has all names of the suspect's layers, layers of equal names are compared; else every layer
    with every one of the source's whose kernels are as large, and the largest lead counts.

    Args:
        suspect: Tensors by name; kernels (O, I, H, W) and matrices (O, I) are compared, others ignored.
        source: The same of the source.
        any_layer: Compare every layer with every one whatever they are called.
        seed: Of the shuffled sources.

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
    # Large kernels are told apart before an order of their columns is known, and hand it on to small ones.
    found = {n: search.judge(n, theirs[n], pairs[n]) for n in sorted(judged, key=lambda n: -theirs[n].shape[2])}
    layers = tuple(found[name] for name in judged)
    return Origin(layers, min(1.0, len(layers) * min(layer.p_value for layer in layers)))


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels and matrices by name, float32 (rows, columns, places of the kernel)."""
    weights = {n: t.detach().cpu().float() for n, t in tensors.items() if t.is_floating_point() and t.ndim in (2, 4)}
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise DataError(f"tensor {name!r}: expected finite numbers, got inf or nan; is the file damaged?")
    return {n: w.reshape(*w.shape[:2], -1) for n, w in weights.items() if len(w) >= LEAST}


def _says_enough(weight: Tensor) -> bool:
    """Are there columns to shuffle? Depthwise kernels and most stems only say which row may be which."""
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
    """Mean of the runner-up's."""

    @property
    def lead(self) -> float:
        return float(self.best.mean()) - self.second


class _Search:
    """Judges layers one by one and keeps the orders it finds: rows of one layer are columns of others."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._orders: dict[tuple[int, int], list[Match]] = {}
        self._special = _scipy("special")

    def look(self, suspect: Tensor, sources: Mapping[str, Tensor]) -> None:
        """Keep the likeliest order of the rows of a layer of few columns, which stay as they are."""
        columns = (torch.arange(suspect.shape[1]),) * 2
        found = [_match_rows(suspect, source, columns, None)[1] for source in sources.values()]
        widths = [(len(suspect), len(source)) for source in sources.values()]
        best = max(range(len(found)), key=lambda i: found[i].lead)
        self._orders.setdefault(widths[best], []).append(found[best].rows)

    def judge(self, name: str, suspect: Tensor, sources: Mapping[str, Tensor]) -> LayerOrigin:
        """The layer beside that of `sources` over whose runner-up it has the largest lead."""
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
        """How often one more draw like these is as large, if they are normal: their spread is estimated, hence t."""
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
        """Orders of columns to begin with."""
        widths = [(suspect.shape[side], source.shape[side]) for side in (0, 1)]
        if widths[1][0] == widths[1][1]:
            yield torch.arange(widths[1][0]), torch.arange(widths[1][1])
        if suspect.shape[2] == 1:
            rows, columns = (self._orders.get(width, [])[:ORDERS] for width in widths)
            yield from columns
            yield from (_columns_of_unsigned(suspect, source, match) for match in rows)
        yield _columns_of_unsigned(suspect, source, _assigned(_cosines(_kinds(suspect), _kinds(source))))


def _turns(suspect: Tensor, source: Tensor, columns: Match) -> Iterator[_Found]:
    """Rows for these columns, then columns for these rows, while the lead grows."""
    rows, lead = None, -torch.inf
    for _ in range(TURNS):
        signs, found = _match_rows(suspect, source, columns, rows)
        yield found
        if found.lead <= lead:
            return
        rows, lead = found.rows, found.lead
        columns = _columns_of(suspect, source, rows, signs)


def _match_rows(suspect: Tensor, source: Tensor, columns: Match, rows: Match | None) -> tuple[Tensor, _Found]:
    """Signs of the matched rows, and the match; columns are balanced over `rows`, the ones matched so far."""
    left, right = suspect[:, columns[0]], source[:, columns[1]]
    # A column's norm is taken over the same channels on both sides: a slice differs from its source there.
    known = (slice(None), slice(None)) if rows is None else rows
    left, right = left * _column_scale(left[known[0]]), right * _column_scale(right[known[1]])
    cosines = _cosines(left, right)
    match = _assigned(cosines.abs())
    best = cosines[match]
    others = cosines.abs().index_put(match, torch.tensor(0.0))
    return best.sign(), _Found(match, columns, best.abs(), float(others[_assigned(others)].mean()))


def _columns_of(suspect: Tensor, source: Tensor, rows: Match, signs: Tensor) -> Match:
    """Columns that go together, given which rows do and with which sign."""
    left, right = _even(suspect[rows[0]]), _even(source[rows[1]] * signs[:, None, None])
    return _assigned(_cosines(left.transpose(0, 1), right.transpose(0, 1)))


def _columns_of_unsigned(suspect: Tensor, source: Tensor, rows: Match) -> Match:
    """The same where signs are not known: by the squares of what two columns have in common in each row."""
    left, right = _even(suspect[rows[0]]), _even(source[rows[1]])
    if suspect.shape[2] == 1:
        return _assigned(left[:, :, 0].square().T @ right[:, :, 0].square())
    total = torch.zeros(suspect.shape[1], source.shape[1])
    for mine, theirs in zip(left, right, strict=True):
        total += (mine @ theirs.T).square()
    return _assigned(total)


def _kinds(weight: Tensor) -> Tensor:
    """What kind of filter each row is, (rows, features): which places of the kernel go together.

    Indifferent to the columns' order, and nearly so to their number; what all rows share is taken off.
    Where a kernel has one place, or very many, the spread of its columns' sizes has to do.
    """
    even = _even(weight)
    if 1 < weight.shape[2] <= LARGEST_KERNEL:
        kinds = torch.einsum("ris,rit->rst", even, even).flatten(1)
    else:
        kinds = torch.quantile(even.norm(dim=2), torch.linspace(0, 1, QUANTILES), dim=1).T
    kinds = F.normalize(kinds, dim=1)
    return kinds - kinds.mean(0)


def _even(weight: Tensor) -> Tensor:
    """The same with rows of norm 1 and columns of about equal norm."""
    return F.normalize((weight * _column_scale(weight)).flatten(1), dim=1).reshape(weight.shape)


def _column_scale(weight: Tensor) -> Tensor:
    """What columns are multiplied with so that rows and columns have about equal norms, (1, columns, 1)."""
    sizes = weight.square().sum(2)
    scale = torch.ones(1, weight.shape[1])
    for _ in range(BALANCINGS):
        sizes = sizes / sizes.sum(1, keepdim=True).clamp_min(TINY)
        columns = sizes.mean(0, keepdim=True)
        columns = torch.where(columns > TINY, columns, 1.0)  # nothing makes a column of zeros larger
        sizes, scale = sizes / columns, scale / columns.sqrt()
    return scale[:, :, None]


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    """Of every row with every other, -1..1."""
    return F.normalize(left.flatten(1), dim=1) @ F.normalize(right.flatten(1), dim=1).T


def _assigned(importance: Tensor) -> Match:
    """Partners, each at most once, of the largest total worth."""
    mine, theirs = _scipy("optimize").linear_sum_assignment(importance.numpy(), maximize=True)
    return torch.from_numpy(mine), torch.from_numpy(theirs)


def _scipy(part: str) -> Any:
    try:
        return importlib.import_module(f"scipy.{part}")
    except ModuleNotFoundError:
        raise ConfigError("origin: expected scipy to be installed, got none; pip install 'pnc-zoo[origin]'") from None
