import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.datasets import service as datasets
from app.datasets.parquet import ImageTable
from app.errors import Invalid
from tests.unit import seeds


def _bytes(table: pa.Table) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file


def _code(file: io.BytesIO, classes: list[str] | None = None) -> str:
    with pytest.raises(Invalid) as caught:
        datasets.inspect(file, classes)
    return caught.value.problems[0].code


def test_images_are_counted_by_the_names_in_the_file() -> None:
    contents = datasets.inspect(io.BytesIO(seeds.parquet([0, 0, 2], ("a", "b", "c"))))
    assert (contents.rows, contents.classes, contents.counts) == (3, ("a", "b", "c"), {"a": 2, "b": 0, "c": 1})


def test_images_without_a_column_of_labels_have_no_classes() -> None:
    table = pq.read_table(io.BytesIO(seeds.parquet([0, 0, 2], ("a", "b", "c")))).drop_columns("label")
    contents = datasets.inspect(_bytes(table))
    assert (contents.rows, contents.classes, contents.counts) == (3, (), {})
    assert _code(_bytes(table), ["a", "b"]) == "no_labels"


def test_names_in_the_request_win() -> None:
    contents = datasets.inspect(io.BytesIO(seeds.parquet([0, 1], ("a", "b"))), ["x", "y"])
    assert contents.counts == {"x": 1, "y": 1}


def test_without_names_nothing_is_guessed() -> None:
    assert _code(io.BytesIO(seeds.parquet([0, 1], None))) == "no_class_names"


@pytest.mark.parametrize("metadata", [b"no json", b"[]", json.dumps({"info": {"features": 3}}).encode()])
def test_odd_metadata_counts_as_none(metadata: bytes) -> None:
    table = pq.read_table(io.BytesIO(seeds.parquet([0]))).replace_schema_metadata({"huggingface": metadata})
    assert _code(_bytes(table)) == "no_class_names"


@pytest.mark.parametrize("label", [-1, 3, None])
def test_labels_without_a_name_are_refused(label: int | None) -> None:
    labels: list[int] = [0, label]  # type: ignore[list-item]
    assert _code(io.BytesIO(seeds.parquet(labels, ("a", "b", "c")))) == "invalid_labels"


def test_repeated_names_are_refused() -> None:
    assert _code(io.BytesIO(seeds.parquet([0])), ["a", "a"]) == "invalid_class_names"


@pytest.mark.parametrize("name", ["", "x" * 129, "a\n", "\ud800", 3, None, ["a"], {}])
def test_names_in_the_file_that_are_no_class_names_are_refused(name: object) -> None:
    info = {"info": {"features": {"label": {"names": ["a", name]}}}}
    metadata = {"huggingface": json.dumps(info).encode()}
    table = pq.read_table(io.BytesIO(seeds.parquet([0]))).replace_schema_metadata(metadata)
    assert _code(_bytes(table)) == "invalid_class_names"


def test_names_in_the_request_follow_the_same_rule() -> None:
    assert _code(io.BytesIO(seeds.parquet([0])), ["a", "b\n"]) == "invalid_class_names"


def test_a_column_named_twice_is_refused() -> None:
    image, label = pa.array([{"bytes": b"x"}]), pa.array([0])
    for names, columns in (
        (["image", "label", "label"], [image, label, label]),
        (["image", "image", "label"], [image, image, label]),
    ):
        assert _code(_bytes(pa.Table.from_arrays(columns, names))) == "invalid_columns"


def test_a_column_whose_name_is_no_text_is_refused() -> None:
    table = pq.read_table(io.BytesIO(seeds.parquet([0]))).append_column("odd!", pa.array([1]))
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=False)
    assert _code(io.BytesIO(file.getvalue().replace(b"odd!", b"odd\xff"))) == "invalid_parquet"


def test_labels_are_tallied_without_an_object_a_row() -> None:
    tally = list(datasets._tally(pa.array([2, 0, 2, None, 2], pa.int8())))
    assert tally == [(2, 3), (0, 1), (None, 1)]


@pytest.mark.parametrize(
    "columns",
    [
        {"pixels": pa.array([b"x"]), "label": pa.array([0])},
        {"image": pa.array([b"x"]), "label": pa.array([0])},
        {"image": pa.array([{"path": "x"}]), "label": pa.array([0])},
        {"image": pa.array([{"bytes": "text"}]), "label": pa.array([0])},
        {"image": pa.array([{"bytes": b"x"}]), "label": pa.array(["cat"])},
    ],
)
def test_other_columns_are_refused_and_named(columns: dict[str, "pa.Array[Any]"]) -> None:
    with pytest.raises(Invalid) as caught:
        datasets.inspect(_bytes(pa.table(columns)))
    (problem,) = caught.value.problems
    assert problem.code == "invalid_columns"
    assert all(name in problem.detail for name in columns)


@pytest.mark.parametrize("damage", [b"", b"no parquet at all", seeds.parquet([0] * 100)[:-200]])
def test_what_is_not_parquet_is_refused(damage: bytes) -> None:
    assert _code(io.BytesIO(damage)) == "invalid_parquet"


@pytest.mark.parametrize(
    ("image", "label"), [("img", "label"), ("image", "labels"), ("img", "fine_label"), ("scan", "finding")]
)
def test_columns_of_published_datasets_are_recognised(image: str, label: str) -> None:
    features = {image: {"_type": "Image"}, label: {"names": ["a", "b"], "_type": "ClassLabel"}}
    if label == "fine_label":
        features["coarse_label"] = {"names": ["c"], "_type": "ClassLabel"}
    columns = {image: pa.array([{"bytes": b"x", "path": "x.png"}] * 3), "coarse_label": pa.array([0] * 3)}
    table = pa.table({**columns, label: pa.array([0, 1, 1])})
    metadata = {"huggingface": json.dumps({"info": {"features": features}}).encode()}
    file = _bytes(table.replace_schema_metadata(metadata))
    assert datasets.inspect(file).counts == {"a": 1, "b": 2}
    found = ImageTable(file)
    assert [row for row, _ in found.images_from(0, 3)] == [0, 1, 2]
    assert found.names_of([2]) == {2: "x.png"}


def test_names_by_number_and_a_file_without_rows() -> None:
    features = {"label": {"names": {"0": "a", "1": "b"}, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pq.read_table(io.BytesIO(seeds.parquet([0, 1]))).replace_schema_metadata(metadata)
    assert datasets.inspect(_bytes(table)).classes == ("a", "b")
    assert _code(_bytes(table.slice(0, 0))) == "no_images"


def test_names_have_one_form() -> None:
    file = io.BytesIO(seeds.parquet([0, 1], ("cafe\u0301", "red\u00a0fox")))
    assert datasets.inspect(file).classes == ("caf\u00e9", "red fox")
    assert _code(io.BytesIO(seeds.parquet([0], ("caf\u00e9", "cafe\u0301")))) == "invalid_class_names"
