import dataclasses
import json
import math

import numpy as np
import pytest

from pnc_core.config import CloneConfig, NetworkSpec, Position
from pnc_core.errors import ConfigError

SPEC = {"architecture": "cnn", "classes": ("a", "b"), "input_size": (1, 8, 8), "mean": (0.5,), "std": (0.5,)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", ()),
        ("classes", ("a", "a")),
        ("keep", 0),
        ("keep", 1.01),
        ("keep", math.nan),
        ("max_size", 0),
        ("max_size", 2.1),
        ("max_macs", 0),
        ("max_macs", 100.1),
        ("max_macs", math.inf),
        ("validation", 0.04),
        ("validation", 0.51),
        ("learning_rate", 0),
        ("learning_rate", 1.5),
        ("shortlist", 0),
        ("shortlist", 65),
        ("epochs", 0),
        ("epochs", 1001),
        ("batch_size", 1),
        ("batch_size", 65537),
        ("screen_images", 31),
        ("screen_images", 1_000_001),
        ("tap_grid", 0),
        ("tap_grid", 9),
        ("views", 0),
        ("views", 101),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_what_was_expected_and_got(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected .+, got ") as caught:
        CloneConfig(**{"classes": ("a",), name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", ["head", "localizer", "augment"])
def test_an_unknown_choice_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected"):
        CloneConfig(**{"classes": ("a",), name: "anything"})


@pytest.mark.parametrize("name", ["shortlist", "epochs", "batch_size", "screen_images", "tap_grid", "views", "seed"])
def test_a_fraction_is_not_an_integer(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected an integer"):
        CloneConfig(**{"classes": ("a",), name: 33.5 if name == "screen_images" else 2.5})


@pytest.mark.parametrize(("name", "value"), [("head", "joint"), ("locality", "strict"), ("refine", 2)])
def test_what_needs_old_images_is_refused_without_them(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected .+ old_images is false: .+, got {value!r}$"):
        CloneConfig(**{"classes": ("a",), "old_images": False, name: value})
    CloneConfig(**{"classes": ("a",), name: value})


@pytest.mark.parametrize("head", ["auto", "affine", "router"])
def test_heads_that_need_no_old_images_are_allowed_without_them(head: str) -> None:
    CloneConfig(classes=("a",), old_images=False, head=head)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    CloneConfig(classes=("a",), keep=1, max_size=2, validation=0.05, learning_rate=1, shortlist=1, epochs=1, seed=0)
    CloneConfig(classes=("a",), validation=0.5, shortlist=64, epochs=1000, tap_grid=8, views=100, seed=2**32 - 1)


def test_parameters_cannot_be_changed_and_need_names() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CloneConfig(classes=("a",)).keep = 1.0
    with pytest.raises(TypeError):
        CloneConfig(("a",))


def test_lists_become_tuples() -> None:
    assert CloneConfig(classes=["a", "b"]).classes == ("a", "b")
    assert NetworkSpec(**{**SPEC, "input_size": [1, 8, 8]}).input_size == (1, 8, 8)


def test_a_position_reads_as_an_arrow() -> None:
    assert str(Position(target="layer1", source="blocks.0")) == "layer1->blocks.0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", ("a",)),
        ("classes", ("a", "a")),
        ("classes", ("a", "")),
        ("classes", ("a", "b" * 129)),
        ("classes", ("a", "b\n")),
        ("input_size", (8, 8)),
        ("input_size", (1, 0, 8)),
        ("input_size", (1, 8, 4097)),
        ("mean", ()),
        ("mean", (0.1, 0.2)),
        ("std", (0.0,)),
        ("std", (-1.0,)),
        ("std", (0.1, 0.2)),
    ],
)
def test_an_impossible_network_spec_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=r": expected .+, got "):
        NetworkSpec(**{**SPEC, name: value})


@pytest.mark.parametrize(("name", "value"), [("mean", (math.nan,)), ("mean", (math.inf,)), ("std", (math.inf,))])
def test_a_normalisation_that_is_not_finite_is_refused(name: str, value: tuple[float]) -> None:
    with pytest.raises(ConfigError, match=name):
        NetworkSpec(**{**SPEC, name: value})


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    config = CloneConfig(classes=("a",), keep=np.float32(0.5), max_macs=1, max_size=1)
    assert [type(value) for value in (config.keep, config.max_macs, config.max_size)] == [float] * 3
    spec = NetworkSpec(**{**SPEC, "input_size": np.array([1, 8, 8]), "mean": (np.float32(0.5),), "std": (1,)})
    assert json.loads(json.dumps(dataclasses.asdict(spec)))["mean"] == [0.5]
    assert {type(value) for value in (*spec.input_size, *spec.std)} == {int, float}


@pytest.mark.parametrize(
    ("name", "value"),
    [("input_size", (1, 8.5, 8)), ("mean", ("a",)), ("classes", ("a", 1)), ("options", {"width": math.nan})],
)
def test_a_network_of_other_things_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: expected"):
        NetworkSpec(**{**SPEC, name: value})
