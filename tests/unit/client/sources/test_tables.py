"""Parquet as `push_to_hub`, `to_parquet` and other programs write it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pnc_client.sources import Options, SourceError, open_images
from pnc_client.sources.canonical import is_canonical
from tests.unit.client.sources.makers import STRUCT, counts, named, pictures, png, table

TWO = named("cat", "dog")


def _labels(*values: Any, kind: "pa.DataType | None" = None) -> "pa.Array[Any]":
    return pa.array(values, kind or pa.int64())


READ: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str | None, int]]] = {
    "plain": ({"image": pictures(3), "label": _labels(0, 1, 0)}, TWO, {"cat": 2, "dog": 1}),
    "a column of numbers before": (
        {"id": _labels(5, 6), "label": _labels(0, 1), "image": pictures(2)}, TWO, {"cat": 1, "dog": 1}),
    "uint8": ({"image": pictures(2), "label": _labels(0, 1, kind=pa.uint8())}, TWO, {"cat": 1, "dog": 1}),
    "texts": ({"image": pictures(2), "label": pa.array(["dog", "cat"])}, None, {"cat": 1, "dog": 1}),
    "texts in a dictionary": (
        {"image": pictures(2), "label": pa.array(["dog", "cat"]).dictionary_encode()}, None, {"cat": 1, "dog": 1}),
    "CIFAR-100 of the Hub": (
        {"img": pictures(2), "fine_label": _labels(0, 1), "coarse_label": _labels(0, 0)},
        {**named("a", "b", column="fine_label", image="img"), **named("c", column="coarse_label", image="img")},
        {"a": 1, "b": 1}),
    "beans": ({"image": pictures(2), "labels": _labels(0, 1)}, named("a", "b", column="labels"), {"a": 1, "b": 1}),
    "any names with metadata": (
        {"scan": pictures(2), "finding": _labels(0, 1)}, named("a", "b", column="finding", image="scan"),
        {"a": 1, "b": 1}),
    "the only column of bytes": ({"scan": pictures(1), "class": pa.array(["a"])}, None, {"a": 1}),
    "bytes without a struct": ({"image": pa.array([png(), png()]), "label": _labels(0, 1)}, TWO, {"cat": 1, "dog": 1}),
    "large bytes": (
        {"image": pictures(2).cast(pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
         "label": _labels(0, 1)}, TWO, {"cat": 1, "dog": 1}),
    "true and false": ({"image": pictures(2), "label": pa.array([True, False])}, TWO, {"cat": 1, "dog": 1}),
    "whole numbers as floats": ({"image": pictures(2), "label": pa.array([0.0, 1.0])}, TWO, {"cat": 1, "dog": 1}),
    "names by number": (
        {"image": pictures(2), "label": _labels(0, 1)},
        {"image": {"_type": "Image"}, "label": {"names": {"0": "cat", "1": "dog"}, "_type": "ClassLabel"}},
        {"cat": 1, "dog": 1}),
    "names with spaces, marks and joined emoji": (
        {"image": pictures(4), "label": _labels(0, 1, 2, 3)}, named("Größe, klein", "a/b", "red\u00a0fox", "👨‍👩‍👧"),
        {"Größe, klein": 1, "a/b": 1, "red fox": 1, "👨‍👩‍👧": 1}),
    "numbers without names": ({"image": pictures(3), "label": _labels(10, 2, 2)}, None, {"10": 1, "2": 2}),
    "no labels": ({"image": pictures(2), "width": _labels(3, 4)}, None, {None: 2}),
    "labels that are all -1": ({"image": pictures(2), "label": _labels(-1, -1)}, TWO, {None: 2}),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "features", "expected"), READ.values(), ids=READ)
def test_columns_are_recognised(
    tmp_path: Path, columns: dict[str, Any], features: dict[str, Any] | None, expected: dict[str | None, int]
) -> None:
    images = open_images(table(tmp_path / "x.parquet", columns, features))
    assert counts(images) == expected
    assert images.lost == []


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str]] = {
    "several labels an image": (
        {"image": pictures(1), "label": pa.array([[0, 1]])}, None, "one whole number or text a row in column 'label'"),
    "several images a row": (
        {"image": pa.array([[{"bytes": png(), "path": None}]], pa.list_(STRUCT)), "label": _labels(0)}, TWO,
        "expected bytes of image files in column 'image'"),
    "pixels as numbers": ({"image": pa.array([[0.5]]), "label": _labels(0)}, TWO, "expected bytes of image files"),
    "no images": ({"text": pa.array(["a"]), "label": _labels(0)}, None, r"--image-column NAME"),
    "two described columns of images": (
        {"left": pictures(1), "right": pictures(1)}, {"left": {"_type": "Image"}, "right": {"_type": "Image"}},
        "one column of images, got left, right"),
    "a label beyond the names": ({"image": pictures(1), "label": _labels(2)}, TWO, "labels from 0 to 1"),
    "fractions": ({"image": pictures(1), "label": pa.array([0.5])}, TWO, "whole numbers in column 'label', got 0.5"),
    "one name twice": ({"image": pictures(1), "label": _labels(0)}, named("crane", "crane"), "'crane' twice"),
    "one name in two forms": (
        {"image": pictures(1), "label": _labels(0)}, named("caf\u00e9", "cafe\u0301"), "'café' twice"),
    "a name of two lines": ({"image": pictures(1), "label": _labels(0)}, named("a\nb", "c"), "printable class names"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "features", "said"), REFUSED.values(), ids=REFUSED)
def test_other_tables_are_refused_with_a_way_out(
    tmp_path: Path, columns: dict[str, Any], features: dict[str, Any] | None, said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        counts(open_images(table(tmp_path / "x.parquet", columns, features)))


def test_rows_without_image_or_label_cost_only_themselves(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(png(7))
    (tmp_path.parent / "outside.png").write_bytes(png(8))
    rows = [
        {"bytes": png(1), "path": "1.png"}, {"bytes": None, "path": "photos/a.png"}, {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": "../outside.png"}, None, {"bytes": b"", "path": None}, {"bytes": png(2), "path": None},
        {"bytes": png(3), "path": None},
    ]  # fmt: skip
    labels = _labels(0, 0, 0, 0, 0, 0, None, -1)
    images = open_images(table(tmp_path / "x.parquet", {"image": pa.array(rows, STRUCT), "label": labels}, TWO))
    assert [(item.name, item.raw) for item in images] == [("1.png", png(1)), ("photos/a.png", png(7))]
    assert {one.name: one.reason for one in images.lost} == {
        "x.parquet row 2": "it has the path 'b.png' and no bytes",
        "x.parquet row 3": "it has the path '../outside.png' and no bytes",
        "x.parquet row 4": "it has no image",
        "x.parquet row 5": "it is an empty file",
        "x.parquet row 6": "it has no label",
        "x.parquet row 7": "it has no label",
    }


def test_columns_and_names_can_be_chosen(tmp_path: Path) -> None:
    columns = {"left": pictures(2), "right": pictures(2), "grade": _labels(1, 0), "sex": pa.array(["f", "m"])}
    path = table(tmp_path / "x.parquet", columns)
    options = Options(image_column="right", label_column="grade", classes="mild,severe")
    assert counts(open_images(path, options)) == {"severe": 1, "mild": 1}
    images = open_images(path, Options(image_column="left", label_column="none"))
    assert counts(images) == {None: 2}
    assert images.notes == ["images from column left, no labels; not read: grade, sex"]
    with pytest.raises(SourceError, match="got 'up', and the columns left"):
        open_images(path, Options(image_column="up"))
    with pytest.raises(SourceError, match="a name for the label 1, got 1 names"):
        open_images(path, Options(image_column="left", label_column="grade", classes=["mild"]))


def test_files_of_a_folder_are_one_source_with_splits(tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"):
        table(tmp_path / f"{name}.parquet", {"img": pictures(2), "label": _labels(0, 1)}, named("a", "b", image="img"))
    (tmp_path / "banner.png").write_bytes(png())
    with pytest.raises(SourceError, match="splits 'test', 'train', none was chosen"):
        open_images(tmp_path)
    images = open_images(tmp_path, Options(split="train"))
    assert counts(images) == {"a": 2, "b": 2}
    assert images.notes[1:] == [
        "split train; 2 images of other splits are left out",
        "1 image files beside the Parquet files are not read",
    ]
    assert counts(open_images(tmp_path, Options(split="all"))) == {"a": 3, "b": 3}
    assert counts(open_images(tmp_path / "data" / "test-*.parquet")) == {"a": 1, "b": 1}


def test_a_table_that_describes_images_is_no_table_of_images(tmp_path: Path) -> None:
    table(tmp_path / "metadata.parquet", {"file_name": pa.array(["cat/1.png"]), "label": _labels(0)})
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png())
    assert counts(open_images(tmp_path)) == {"cat": 1, "dog": 1}


def test_only_files_that_need_no_change_are_sent_as_they_are(tmp_path: Path) -> None:
    good = {"image": pictures(2), "label": _labels(0, 1)}
    path = table(tmp_path / "x.parquet", good, TWO)
    assert is_canonical(path, Options())
    assert is_canonical(table(tmp_path / "y.parquet", good), Options(classes=["a", "b"]))
    assert is_canonical(table(tmp_path / "z.parquet", {"image": pictures(2)}), Options())
    assert not is_canonical(path, Options(split="train"))
    assert not is_canonical(tmp_path, Options())
    for number, (columns, features) in enumerate([
        (good, None), ({**good, "label": _labels(0, None)}, TWO), ({**good, "label": _labels(0, -1)}, TWO),
        ({"img": pictures(2), "label": _labels(0, 1)}, TWO), ({"image": pictures(2), "labels": _labels(0, 1)}, TWO),
        ({**good, "label": pa.array(["a", "b"])}, None),
    ]):  # fmt: skip
        assert not is_canonical(table(tmp_path / f"{number}.parquet", columns, features), Options())


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"image,label\n")
    with pytest.raises(SourceError, match="expected a Parquet file"):
        open_images(tmp_path / "x.parquet")
