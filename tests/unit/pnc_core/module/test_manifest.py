import json
from typing import Any

import pytest

from pnc_core.errors import BundleError
from pnc_core.module.bundle import Bundle
from pnc_core.module.manifest import Manifest, canonical_json


@pytest.fixture
def value(by_hand: dict[str, Bundle]) -> dict[str, Any]:
    return json.loads(by_hand["affine"].manifest.to_json())


def _read(value: object) -> Manifest:
    return Manifest.from_json(json.dumps(value))


def test_a_round_trip_gives_the_same_manifest_and_the_same_bytes(by_hand: dict[str, Bundle]) -> None:
    for bundle in by_hand.values():
        text = bundle.manifest.to_json()
        assert Manifest.from_json(text) == bundle.manifest
        assert Manifest.from_json(text).to_json().encode() == text.encode()


def test_the_order_and_spacing_of_the_text_do_not_matter(value: dict[str, Any]) -> None:
    text = json.dumps(dict(reversed(value.items())), indent=4)
    assert Manifest.from_json(text).to_json() == canonical_json(value)


def test_canonical_json_is_sorted_dense_and_readable() -> None:
    assert canonical_json({"b": [1, 2.0], "a": "é"}) == '{"a":"é","b":[1,2.0]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_an_unknown_field_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="surprise"):
        _read({**value, "surprise": 1})
    value["head"]["surprise"] = 1
    with pytest.raises(BundleError, match=r"manifest\.head: .*surprise"):
        _read(value)


def test_a_manifest_from_before_images_were_resized_says_cells(value: dict[str, Any]) -> None:
    del value["adapter_resize"]
    assert _read(value).adapter_resize == "cells"


@pytest.mark.parametrize("name", ["classes", "target_fingerprint", "position", "sizes", "config"])
def test_a_missing_field_is_refused_by_name(value: dict[str, Any], name: str) -> None:
    del value[name]
    with pytest.raises(BundleError, match=name):
        _read(value)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (["classes"], "ab"),
        (["classes", 0], 5),
        (["payload"], "half"),
        (["payload"], ["full"]),
        (["adapter_relu"], 1),
        (["kept_fraction"], "0.5"),
        (["kept_fraction"], True),
        (["kept_fraction"], None),
        (["sizes", "head"], 2.5),
        (["sizes", "head"], True),
        (["sizes"], []),
        (["head", "kind"], "other"),
        (["validation", "old"], "1"),
        (["target", "input_size"], [1, 8]),
        (["target", "input_size"], [1, 8, 8.5]),
        (["target", "options"], {"width": [8]}),
        (["target", "classes"], ["0", "0"]),
        (["config", "keep"], 7),
        (["config", "epochs"], 2.5),
        (["config", "head"], "other"),
        (["position"], "input"),
    ],
)
def test_a_wrong_type_or_value_is_refused(value: dict[str, Any], path: list[Any], wrong: object) -> None:
    place: Any = value
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = wrong
    with pytest.raises(BundleError, match="expected"):
        _read(value)


@pytest.mark.parametrize("got", ["pnc-bundle/2", "", None, 1])
def test_another_format_is_refused_and_says_both(value: dict[str, Any], got: object) -> None:
    with pytest.raises(BundleError, match=r"expected format 'pnc-bundle/1', got"):
        _read({**value, "format": got})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"pnc-bundle/1"', "[" * 100_000, '{"a":' * 100_000])
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(text)


@pytest.mark.parametrize("depth", [500, 900, 980])
def test_deep_nesting_inside_a_field_is_refused(value: dict[str, Any], depth: int) -> None:
    value["created_by"] = "HERE"
    text = json.dumps(value).replace('"HERE"', "[" * depth + "]" * depth)
    with pytest.raises(BundleError):
        Manifest.from_json(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_number_that_is_not_finite_is_refused(value: dict[str, Any], number: str) -> None:
    value["kept_fraction"] = "HERE"
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(value).replace('"HERE"', number))


def test_a_repeated_key_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(value)[:-1] + ',"payload":"thin"}')
