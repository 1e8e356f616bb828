"""Parquet files that mean harm to whoever reads their images, made anew at each call."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from PIL import Image

from tests.corpus import _schema

MEGAPIXEL = 1155
"""Side of a picture that takes 4 MB where nothing is compressed."""


def picture(side: int = 8, shade: int = 0) -> bytes:
    """A PNG in which nothing is compressed."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), shade, np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def table(images: "pa.Array[Any]", classes: tuple[str, ...] = ("a", "b")) -> pa.Table:
    """Images, with the labels 0 and 1 by turns."""
    labels = pa.array(np.arange(len(images)) % len(classes))
    image = pa.StructArray.from_arrays([images, pa.nulls(len(images), pa.string())], ["bytes", "path"])
    schema = pa.schema([("image", image.type), ("label", pa.int64())]).with_metadata(_schema(classes).metadata)
    return pa.table({"image": image, "label": labels}, schema=schema)


def written(content: pa.Table, **options: Any) -> bytes:
    """The file of a table."""
    file = io.BytesIO()
    pq.write_table(content, file, **options)
    return file.getvalue()


def repeated(rows: int, values: list[bytes], **options: Any) -> bytes:
    """Few images, each of which many rows refer to."""
    indices = pa.array(np.arange(rows) % len(values), pa.int32())
    images = pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.binary()))
    given = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 2**30, **options}
    return written(table(images), **given)


def bomb(rows: int = 600) -> bytes:
    """Some kilobytes that are one picture of 4 MB in every row."""
    return repeated(rows, [picture(MEGAPIXEL)])


def broken_page(column: str, classes: tuple[str, ...] = ("a", "b")) -> bytes:
    """Three row groups, and noise in the middle of a compressed page of the second one."""
    images = pa.array([picture(40, shade) for shade in range(90)], pa.binary())
    raw = bytearray(written(table(images, classes), row_group_size=30, compression="zstd", use_dictionary=False))
    chunk = pq.read_metadata(io.BytesIO(raw)).row_group(1).column({"image.bytes": 0, "label": 2}[column])
    end = chunk.data_page_offset + chunk.total_compressed_size
    raw[end - 30 : end] = b"\xff" * 30
    return bytes(raw)


def miscounted(count: int, rows: int = 10_000) -> bytes:
    """Pages of images whose headers say that they hold so many values."""
    images = pa.array([b"png"] * rows, pa.binary())
    raw = written(table(images), use_dictionary=False, compression="none", data_page_version="1.0")
    assert _count(rows) in raw[:200]
    return raw.replace(_count(rows), _count(count))


def _count(values: int) -> bytes:
    """Thrift's field of a page header for it, with a number of three bytes."""
    twice = 2 * values
    return bytes([0x15, twice & 0x7F | 0x80, twice >> 7 & 0x7F | 0x80, twice >> 14])


def encrypted() -> bytes:
    """A file that cannot be read without a key."""

    class Keys(pe.KmsClient):
        def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
            return base64.b64encode(key_bytes)

        def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
            return base64.b64decode(wrapped_key)

    factory = pe.CryptoFactory(lambda _: Keys())
    given = pe.EncryptionConfiguration(footer_key="k", column_keys={"k": ["label"]})
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), given)
    return written(table(pa.array([b"png"] * 10, pa.binary())), encryption_properties=properties)


def unreadable() -> Iterator[tuple[str, bytes, str]]:
    """Files that are refused: their names, and a part of what is said."""
    whole = written(table(pa.array([picture()] * 20, pa.binary())))
    yield "broken images", broken_page("image.bytes"), "row group 1 of 3, column image.bytes"
    yield "broken labels", broken_page("label"), "row group 1 of 3, column label"
    yield "short page", miscounted(1), "row group 0 of 1"
    yield "encrypted", encrypted(), "footer"
    for left in (8, len(whole) // 2, len(whole) - 1):
        yield f"cut at {left}", whole[:left], "footer"
    yield "zip", b"PK\x03\x04" + bytes(64), "footer"
