import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.zoo import datasets
from app.zoo.errors import Invalid
from tests.unit.zoo import seeds


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
