"""Compare the names and shapes of a file's tensors with those of a network.

References:
    Own choice. A state dict comes in the order in which the network's layers were made, so that equal shapes in equal
    order are strong evidence. Safetensors files lose this order.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name, in the order of the state dict."""
_COUNTER = "num_batches_tracked"


def by_names(file: Shapes, own: Shapes, published: Callable[[str], str]) -> dict[str, str] | None:
    """The key map where the file has exactly the published names and shapes; else None.

    Args:
        file: Tensors of the file.
        own: Tensors of the network.
        published: The published name of one of the network's tensors.

    Returns:
        The network's name by the file's name.
    """
    names = {published(name): name for name in own}
    fits = names.keys() == file.keys() and all(file[name] == own[mine] for name, mine in names.items())
    return {name: names[name] for name in file} if fits else None


def by_order(file: Shapes, own: Shapes) -> dict[str, str] | None:
    """The key map where both have the same shapes, and the same last parts of names, in the same order; else None."""
    theirs, ours = _counted_apart(file), _counted_apart(own)
    same = len(theirs) == len(ours) and all(
        file[a] == own[b] and _last(a) == _last(b) for a, b in zip(theirs, ours, strict=True)
    )
    return _with_counters(file, own, dict(zip(theirs, ours, strict=True))) if same else None


def by_shapes(file: Shapes, own: Shapes) -> dict[str, str] | None:
    """The key map of a file that lost its order, where names in their natural order lead to one; else None.

    Layers of equal shapes are matched in the natural order of their names. The map holds only if layers side by side in
    the file (under one parent) are side by side in the network.
    """
    theirs, ours = _layers(file), _layers(own)
    if Counter(theirs.values()) != Counter(ours.values()):
        return None
    for order in (list(ours), sorted(ours, key=_natural)):
        layers = _in_turn(sorted(theirs, key=_natural), theirs, order, ours)
        if _keeps_parents(layers):
            pairs = {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in layers.items() for leaf, _ in theirs[a]}
            return _with_counters(file, own, {a.strip("."): b.strip(".") for a, b in pairs.items()})
    return None


def likeness(file: Shapes, own: Shapes) -> float:
    """Share of tensors whose shape the other side has as well, 0..1."""
    theirs = Counter(file[name] for name in _counted_apart(file))
    ours = Counter(own[name] for name in _counted_apart(own))
    return (theirs & ours).total() / max(1, (theirs | ours).total())


def renamed(key_map: Mapping[str, str | None], names: Sequence[str]) -> dict[str, str]:
    """Rename tensors.

    Args:
        key_map: New names by old ones, of tensors or of parts such as `linear`, whose tensors follow. None: leave out.
        names: All names of the file.

    Returns:
        The new name by the old one.
    """
    new_names = {}
    for name in names:
        known = [key for key in key_map if name == key or name.startswith(f"{key}.")]
        key = max(known, key=len, default=None)
        new = name if key is None else key_map[key]
        if new is not None:
            new_names[name] = name if key is None else new + name[len(key) :]
    return new_names


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _counted_apart(shapes: Shapes) -> list[str]:
    return [name for name in shapes if _last(name) != _COUNTER]


def _with_counters(file: Shapes, own: Shapes, pairs: dict[str, str]) -> dict[str, str]:
    layers = {a.rpartition(".")[0]: b.rpartition(".")[0] for a, b in pairs.items()}
    counters = [name for name in file if _last(name) == _COUNTER]
    whole = pairs | {name: f"{layers.get(name.rpartition('.')[0], '')}.{_COUNTER}" for name in counters}
    return {name: whole[name] for name in file if whole[name] in own}


def _layers(shapes: Shapes) -> dict[str, tuple[tuple[str, tuple[int, ...]], ...]]:
    """Last parts of names with shapes, by layer."""
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name in _counted_apart(shapes):
        found.setdefault(name.rpartition(".")[0], []).append((_last(name), shapes[name]))
    return {layer: tuple(sorted(tensors)) for layer, tensors in found.items()}


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Numbers by value, words by letters."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|[^\d.]+", name)]


def _in_turn(
    theirs: Sequence[str], kinds: Mapping[str, object], ours: Sequence[str], own_kinds: Mapping[str, object]
) -> dict[str, str]:
    waiting: dict[object, list[str]] = {}
    for layer in ours:
        waiting.setdefault(own_kinds[layer], []).append(layer)
    return {layer: waiting[kinds[layer]].pop(0) for layer in theirs}


def _keeps_parents(layers: Mapping[str, str]) -> bool:
    parents: dict[str, str] = {}
    return all(
        parents.setdefault(a.rpartition(".")[0], b.rpartition(".")[0]) == b.rpartition(".")[0]
        for a, b in layers.items()
    )
