import pytest

from pnc_core.networks.matching import by_names, by_order, by_shapes, likeness, renamed

BLOCK = {"conv.weight": (4, 3, 3, 3), "bn.weight": (4,), "bn.bias": (4,), "bn.num_batches_tracked": ()}
TWO = {f"layer.{i}.{name}": shape for i in (0, 1) for name, shape in BLOCK.items()} | {"fc.weight": (2, 4)}
THEIRS = {
    f"stage_{i + 1}.{'c' if name.startswith('conv') else 'n'}.{name.partition('.')[2]}": shape
    for i in (0, 1)
    for name, shape in BLOCK.items()
} | {"head.weight": (2, 4)}


def test_all_names_of_a_repository_are_needed() -> None:
    file = {name.replace("fc", "linear"): shape for name, shape in TWO.items()}
    found = by_names(file, TWO, lambda name: name.replace("fc", "linear"))
    assert found is not None
    assert found["linear.weight"] == "fc.weight"
    assert list(found) == list(file)
    assert by_names(file, TWO, lambda name: name) is None
    assert by_names(file | {"linear.weight": (3, 4)}, TWO, lambda name: name.replace("fc", "linear")) is None


def test_equal_shapes_in_equal_order_are_a_key_map_with_the_counters() -> None:
    found = by_order(THEIRS, TWO)
    assert found == dict(zip(THEIRS, TWO, strict=True))
    assert by_order(dict(reversed(THEIRS.items())), TWO) is None
    without = {name: shape for name, shape in THEIRS.items() if "num_batches" not in name}
    assert by_order(without, TWO) == {name: found[name] for name in without}


def test_a_weight_is_no_bias_though_their_shapes_are_equal() -> None:
    assert by_order({"a.bias": (4,), "a.weight": (4,)}, {"b.weight": (4,), "b.bias": (4,)}) is None


def test_without_order_names_in_their_natural_order_lead_to_a_key_map() -> None:
    assert by_shapes(dict(sorted(THEIRS.items())), TWO) == dict(zip(THEIRS, TWO, strict=True))
    ten = {f"b.{i}.w": (i // 6,) for i in range(12)}
    assert by_shapes(dict(sorted(ten.items())), {f"c.{i}.w": (i // 6,) for i in range(12)}) == {
        f"b.{i}.w": f"c.{i}.w" for i in range(12)
    }


def test_a_match_that_tears_layers_of_one_part_asunder_is_none() -> None:
    own = {"one.bn.w": (4,), "one.conv.w": (5,), "two.bn.w": (4,), "two.conv.w": (6,)}
    file = {"z.bn.w": (4,), "z.conv.w": (5,), "a.bn.w": (4,), "a.conv.w": (6,)}
    assert by_shapes(file, own) is None
    assert by_shapes({"a.x.w": (4,)}, own) is None


@pytest.mark.parametrize(
    ("key_map", "names", "new"),
    [
        ({"linear": "fc"}, ["linear.weight", "linear2.bias"], ["fc.weight", "linear2.bias"]),
        ({"a": "x", "a.b": "y"}, ["a.b.c", "a.c"], ["y.c", "x.c"]),
        ({"a.weight": "b.weight"}, ["a.weight", "a.bias"], ["b.weight", "a.bias"]),
        ({"aux": None}, ["aux.weight", "a.weight"], ["a.weight"]),
        ({}, ["a"], ["a"]),
    ],
)
def test_a_key_map_renames_tensors_and_parts(key_map: dict[str, str | None], names: list[str], new: list[str]) -> None:
    assert list(renamed(key_map, names).values()) == new


def test_likeness_is_the_share_of_shapes_that_both_have() -> None:
    assert likeness(TWO, TWO) == 1
    assert likeness({"a": (1,), "b": (2,)}, {"x": (2,), "y": (3,)}) == pytest.approx(1 / 3)
    assert likeness({}, {}) == 0
