"""Random bytes: a parsed header is consistent, and all other bytes are refused with our own error."""

import io
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pnc_core.errors import BundleError, SignatureError, TensorFileError
from pnc_core.module.bundle import read_bundle
from pnc_core.module.signing import read_signature
from pnc_core.tensorfile import DTYPE_BYTES, read_header

EXAMPLES = 2000 if os.environ.get("PNC_FUZZ") == "long" else 60
QUICK = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**50) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NEAR = st.dictionaries(
    st.sampled_from(["a", "b", "head.weight", "__metadata__", "../a", ""]),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from([*DTYPE_BYTES, "Q8", 1]),
            "shape": st.lists(st.integers(-1, 5), max_size=3),
            "data_offsets": st.lists(st.integers(-1, 40), min_size=1, max_size=3),
        }
    )
    | JSON,
    max_size=3,
)


def framed(value: object, data: bytes, off: int) -> bytes:
    header = json.dumps(value).encode()
    return struct.pack("<Q", max(len(header) + off, 0)) + header + data


FILES = st.binary(max_size=200) | st.builds(
    framed, JSON | NEAR, st.binary(max_size=40), st.sampled_from([0, 0, 0, 1, -1])
)


@QUICK
@given(FILES)
def test_a_header_is_whole_or_refused(content: bytes) -> None:
    try:
        header = read_header(io.BytesIO(content))
    except TensorFileError:
        return
    data = len(content) - 8 - int.from_bytes(content[:8], "little")
    sizes = [DTYPE_BYTES[t.dtype] * _numbers(t.shape) for t in header.tensors.values()]
    assert sum(sizes) == data


def _numbers(shape: tuple[int, ...]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


@QUICK
@given(content=FILES, manifest=JSON)
def test_nothing_but_a_bundle_is_read_as_one(tmp_path: Path, content: bytes, manifest: object) -> None:
    path = tmp_path / "file"
    inside = {"__metadata__": {"pnc": json.dumps(manifest)}}
    for raw in (content, framed(inside, b"", 0)):
        path.write_bytes(raw)
        with pytest.raises(BundleError, match="expected"):
            read_bundle(path)


@QUICK
@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_nothing_but_a_signature_is_read_as_one(text: str) -> None:
    with pytest.raises(SignatureError, match="expected"):
        read_signature(text)
