import json
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pnc_core.errors import TensorFileError
from pnc_core.tensorfile import MAX_HEADER_BYTES, MAX_TENSORS, TensorInfo, read_header


def _write(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def _tensor(begin: int, end: int, **other: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **other}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def test_a_file_of_the_library_is_read(file: Path) -> None:
    tensors = {"a.weight": torch.ones(2, 3), "b": torch.ones((), dtype=torch.int64), "empty": torch.ones(0, 4)}
    safetensors.torch.save_file(tensors, file, {"key": "value"})
    header = read_header(file)
    assert header.tensors["a.weight"] == TensorInfo("F32", (2, 3))
    assert header.tensors["b"] == TensorInfo("I64", ())
    assert header.metadata == {"key": "value"}
    assert header.parameters == 7


@pytest.mark.parametrize("length", range(0, 300, 7))
def test_a_file_cut_anywhere_is_refused(file: Path, length: int) -> None:
    safetensors.torch.save_file({"a": torch.ones(50), "b": torch.ones(3)}, file)
    raw = file.read_bytes()
    assert length < len(raw)
    file.write_bytes(raw[:length])
    with pytest.raises(TensorFileError):
        read_header(file)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, MAX_HEADER_BYTES + 1])
def test_a_huge_header_length_is_refused(file: Path, length: int) -> None:
    file.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(TensorFileError, match=rf"at most {MAX_HEADER_BYTES} bytes, got {length}"):
        read_header(file)


def test_a_header_of_five_megabytes_is_refused_at_once(file: Path) -> None:
    _write(file, b" " * (5 * 1024 * 1024))
    started = time.perf_counter()
    with pytest.raises(TensorFileError):
        read_header(file)
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
        b'{"__metadata__":{"a":"1","a":"2"}}',
    ],
)
def test_a_repeated_key_is_refused_at_every_level(file: Path, raw: bytes) -> None:
    with pytest.raises(TensorFileError, match="repeated key"):
        read_header(_write(file, raw))


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": _tensor(0, 4), "b": _tensor(2, 6)},
        {"a": _tensor(0, 4), "b": _tensor(0, 4)},
        {"a": _tensor(0, 2), "b": _tensor(4, 6)},
        {"a": _tensor(2, 6)},
        {"a": _tensor(0, 5)},
        {"a": _tensor(0, 8)},
        {"a": _tensor(0, 6, data_offsets=[6, 0])},
    ],
    ids=["overlap", "same bytes", "gap", "late start", "bytes left over", "beyond the file", "backwards"],
)
def test_tensors_must_cover_the_data_exactly(file: Path, tensors: dict[str, Any]) -> None:
    with pytest.raises(TensorFileError, match="expected"):
        read_header(_write(file, tensors, bytes(6)))


def test_trailing_bytes_are_refused(file: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, file)
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(TensorFileError, match="expected 8 bytes of tensor data, got 9"):
        read_header(file)


@pytest.mark.parametrize("dtype", ["F128", "f32", "", "C64", "F8_E4M3", None, 3])
def test_another_dtype_is_refused(file: Path, dtype: object) -> None:
    with pytest.raises(TensorFileError, match="dtype"):
        read_header(_write(file, {"a": _tensor(0, 0, dtype=dtype)}))


@pytest.mark.parametrize("dtype", [[], {}, ["F32"]])
def test_a_dtype_that_is_no_text_is_refused(file: Path, dtype: object) -> None:
    with pytest.raises(TensorFileError, match="dtype"):
        read_header(_write(file, {"a": _tensor(0, 0, dtype=dtype)}))


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a\x00", "é", "x" * 257, "a;b", "a:b"])
def test_an_odd_name_is_refused(file: Path, name: str) -> None:
    with pytest.raises(TensorFileError, match="tensor name"):
        read_header(_write(file, {name: _tensor(0, 0)}))


@pytest.mark.parametrize("numbers", [[1.0], [True], ["1"], [-1], [None], 1, {"0": 1}, [2**48], [1] * 9])
def test_a_shape_that_is_not_of_whole_numbers_is_refused(file: Path, numbers: object) -> None:
    with pytest.raises(TensorFileError, match="shape"):
        read_header(_write(file, {"a": _tensor(0, 1, shape=numbers)}, b"x"))


@pytest.mark.parametrize("offsets", [[0.0, 1.0], [False, True], ["0", "1"], [0], [0, 1, 2], None, "01"])
def test_offsets_that_are_not_two_whole_numbers_are_refused(file: Path, offsets: object) -> None:
    with pytest.raises(TensorFileError, match="offsets"):
        read_header(_write(file, {"a": _tensor(0, 1, data_offsets=offsets)}, b"x"))


@pytest.mark.parametrize("entry", [None, [], "a", {}, {"dtype": "U8", "shape": []}, {**_tensor(0, 0), "extra": 1}])
def test_an_entry_that_is_no_tensor_is_refused(file: Path, entry: object) -> None:
    with pytest.raises(TensorFileError, match="expected dtype, shape and data_offsets"):
        read_header(_write(file, {"a": entry}))


@pytest.mark.parametrize("metadata", [[], "a", None, {"a": 1}, {"a": {}}])
def test_metadata_must_map_text_to_text(file: Path, metadata: object) -> None:
    with pytest.raises(TensorFileError, match="__metadata__"):
        read_header(_write(file, {"__metadata__": metadata}))


def test_too_many_tensors_are_refused(file: Path) -> None:
    with pytest.raises(TensorFileError, match="at most"):
        read_header(_write(file, {str(i): _tensor(0, 0) for i in range(MAX_TENSORS + 1)}))


@pytest.mark.parametrize("raw", [b"[]", b"null", b"{]", b"\xff\xfe", b"[" * 100_000, b'{"a":' + b"1" * 5000 + b"}"])
def test_a_header_that_is_no_json_object_is_refused(file: Path, raw: bytes) -> None:
    with pytest.raises(TensorFileError):
        read_header(_write(file, raw))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_a_header_that_is_not_plain_utf_8_is_refused(file: Path, encoding: str) -> None:
    with pytest.raises(TensorFileError):
        read_header(_write(file, json.dumps({"a": _tensor(0, 1)}).encode(encoding), b"x"))


def test_half_a_surrogate_in_the_metadata_is_refused(file: Path) -> None:
    with pytest.raises(TensorFileError):
        read_header(_write(file, rb'{"__metadata__":{"a":"\ud800"}}'))


_quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_entry = st.fixed_dictionaries({"dtype": _json, "shape": _json, "data_offsets": _json})


def _reads_or_refuses(path: Path) -> None:
    try:
        read_header(path)
    except TensorFileError:
        return


@_quick
@given(raw=st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    _reads_or_refuses(file)


@_quick
@given(raw=st.binary(max_size=200))
def test_arbitrary_headers_raise_nothing_else(file: Path, raw: bytes) -> None:
    _reads_or_refuses(_write(file, raw))


@_quick
@given(header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), _json | _entry))
def test_arbitrary_json_raises_nothing_else(file: Path, header: dict[str, object]) -> None:
    _reads_or_refuses(_write(file, header, b"xx"))
