"""Hostile files, made by code. The service must refuse each with a reason, and change nothing.

A file whose bytes contain a command creates the file `canary` if the command runs.
"""

import io
import json
import pickle  # noqa: TID251 - to make files that must be refused
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pnc_core.tensorfile import MAX_HEADER_BYTES

Kind = Literal["weights", "bundle", "dataset", "image"]


@dataclass(frozen=True)
class Hostile:
    """One hostile file."""

    name: str
    kind: Kind
    content: bytes


class _Touch:
    """Creates the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._canary,)


def corpus(canary: Path) -> list[Hostile]:
    """All hostile files; `canary` names a file that does not exist."""
    found = [Hostile(f"weights-{n}", "weights", c) for n, c in (*_renamed(canary), *_headers())]
    found += [Hostile(f"bundle-{n}", "bundle", c) for n, c in (*_renamed(canary), *_headers(), *_manifests())]
    found += [Hostile(f"dataset-{n}", "dataset", c) for n, c in (*_renamed(canary), *_parquets())]
    found += [Hostile(f"image-{n}", "image", c) for n, c in (*_renamed(canary), *_images())]
    return found


def bombs() -> list[Hostile]:
    """Files with headers that are small to send and expensive to parse."""
    deep, wide = MAX_HEADER_BYTES - 100, MAX_HEADER_BYTES - 100
    texts = {
        "nested-lists": b"[" * (deep // 2) + b"]" * (deep // 2),
        "nested-objects": b'{"a":' * (deep // 6) + b"1" + b"}" * (deep // 6),
        "empty-objects": b'{"a":[' + b"{}," * (wide // 3) + b"{}]}",
        "empty-lists": b'{"a":[' + b"[]," * (wide // 3) + b"[]]}",
        "empty-strings": b'{"a":[' + b'"",' * (wide // 3) + b'""]}',
        "numbers": b'{"a":[' + b"1," * (wide // 2) + b"1]}",
        "keys": b"{" + b",".join(b'"%07d":0' % i for i in range(wide // 12)) + b"}",
        "one-number": b'{"a":' + b"9" * wide + b"}",
        "one-string": b'{"a":"' + b"x" * wide + b'"}',
        "escapes": b'{"a":"' + rb"\u0041" * (wide // 6) + b'"}',
        "manifest-inside": b'{"__metadata__":{"pnc":"[' + b"{}," * (wide // 3) + b'{}]"}}',
        "over-the-limit": b'{"a":"' + b"x" * (20 * MAX_HEADER_BYTES) + b'"}',
    }
    return [Hostile(name, "weights", _framed(text)) for name, text in texts.items()]


def _framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _tensors(header: Any, data: bytes = b"") -> bytes:
    return _framed(json.dumps(header).encode(), data)


def _one(name: str = "a", **changes: Any) -> dict[str, Any]:
    return {name: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], **changes}}


def _renamed(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Files of other formats with the names of ours."""
    for protocol in (0, 2, 5):
        yield f"pickle-{protocol}", pickle.dumps(_Touch(canary), protocol)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Touch(canary)))
        file.writestr("../../../../" + str(canary).lstrip("/"), b"escaped")
    yield "zip-of-torch", archive.getvalue()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(10**7))
    yield "zip-bomb", bomb.getvalue()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(canary)
        file.addfile(link)
        file.addfile(tarfile.TarInfo("../" * 9 + str(canary).lstrip("/")))
    yield "tar-of-links", tar.getvalue()
    array = io.BytesIO()
    np.save(array, np.array([_Touch(canary)], dtype=object), allow_pickle=True)
    yield "numpy-of-objects", array.getvalue()
    yield "script", f"#!/bin/sh\ntouch {canary}\n".encode()
    yield "python", f"import pathlib; pathlib.Path({str(canary)!r}).touch()\n".encode()
    yield "html", b"<script>fetch('/v1/keys')</script>"
    yield "json", b'{"weights": "file:///etc/passwd"}'
    yield "yaml", b"!!python/object/apply:os.system ['true']\n"
    yield "xml-entities", b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
    yield "empty", b""
    yield "zeros", bytes(4096)
    yield "gzip", zlib.compress(bytes(10**6))


def _headers() -> Iterator[tuple[str, bytes]]:
    """safetensors with wrong headers."""
    four = bytes(4)
    yield "length-huge", struct.pack("<Q", 2**63) + b"{}"
    yield "length-most", struct.pack("<Q", 2**64 - 1) + b"{}"
    yield "length-beyond", struct.pack("<Q", 100) + b"{}"
    yield "length-short", b"\1\0"
    yield "no-json", _framed(b"not json")
    yield "not-utf8", _framed(b'{"\xff":1}')
    yield "utf16", _framed('{"a": 1}'.encode("utf-16"))
    yield "list", _framed(b"[]")
    yield "null", _framed(b"null")
    yield "nan", _framed(b'{"a": NaN}')
    yield "lone-surrogate", _framed(b'{"\\ud800": {}}')
    yield "key-twice", _framed(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}')
    yield "metadata-number", _tensors({"__metadata__": {"a": 1}})
    yield "metadata-list", _tensors({"__metadata__": []})
    yield "overlap", _tensors({**_one("a"), **_one("b", data_offsets=[2, 6])}, bytes(6))
    yield "same-place", _tensors({**_one("a"), **_one("b")}, four)
    yield "gap", _tensors({**_one("a"), **_one("b", data_offsets=[6, 10])}, bytes(10))
    yield "beyond-the-end", _tensors(_one(data_offsets=[0, 400], shape=[400]), four)
    yield "backwards", _tensors(_one(data_offsets=[4, 0]), four)
    yield "negative", _tensors(_one(data_offsets=[-4, 0]), four)
    yield "negative-shape", _tensors(_one(shape=[-4]), four)
    yield "shape-overflow", _tensors(_one(shape=[2**32, 2**32]), four)
    yield "shape-of-floats", _tensors(_one(shape=[4.0]), four)
    yield "shape-of-booleans", _tensors(_one(shape=[True, 4]), four)
    yield "rank", _tensors(_one(shape=[1] * 9 + [4]), four)
    yield "dtype", _tensors(_one(dtype="OBJECT"), four)
    yield "dtype-list", _tensors(_one(dtype=["U8"]), four)
    yield "field-more", _tensors(_one(reduce="os.system"), four)
    yield "field-less", _tensors({"a": {"dtype": "U8", "shape": [4]}}, four)
    yield "trailing", _tensors(_one(), bytes(4096))
    for name in ("../../etc/passwd\0", "a\nb", "a\x1b[2J", "", "x" * 300, "__import__('os')", "a b", "\u202egnp.exe"):
        yield f"name-{name.encode().hex()[:20]}", _tensors(_one(name), four)


def _manifests() -> Iterator[tuple[str, bytes]]:
    """Well-formed headers without a valid bundle manifest."""
    for name, text in {
        "none": None,
        "empty": "",
        "number": "1",
        "list": "[]",
        "other-format": '{"format":"pnc-bundle/999"}',
        "half": '{"format":"pnc-bundle/1"}',
        "deep": "[" * 100_000,
        "path": '{"format":"pnc-bundle/1","target":{"architecture":"/etc/passwd"}}',
        "dotted": '{"format":"pnc-bundle/1","source":{"architecture":"os.system"}}',
        "infinite": '{"format":"pnc-bundle/1","kept_fraction":1e999}',
        "twice": '{"format":"pnc-bundle/1","format":"pnc-bundle/1"}',
    }.items():
        yield f"manifest-{name}", _tensors({"__metadata__": {} if text is None else {"pnc": text}, **_one()}, bytes(4))
    yield "manifest-beside", _tensors({"__metadata__": {"pnc": "{}", "other": "x"}, **_one()}, bytes(4))


def _parquets() -> Iterator[tuple[str, bytes]]:
    """Parquet files that are damaged, have other columns, or are much larger when decoded."""
    whole = _table([0, 1, 2])
    yield "cut", whole[: len(whole) // 2]
    yield "footer-length", whole[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1"
    yield "footer-zero", whole[:-8] + struct.pack("<I", 0) + b"PAR1"
    yield "footer-noise", b"PAR1" + bytes(range(256)) * 4 + struct.pack("<I", 1024) + b"PAR1"
    yield "magic-alone", b"PAR1PAR1"
    yield "label-out-of-range", _table([0, 99])
    yield "label-negative", _table([-1])
    yield "names-twice", _table([0], ("a", "a"))
    yield "names-none", _table([0], None)
    yield "names-control", _table([0], ("a\x1b[2J",))
    yield "names-long", _table([0], ("x" * 10_000,))
    yield "names-number", _table([0], (1, 2))  # type: ignore[arg-type]
    for name, columns in {
        "text-image-no-label": {"image": pa.array(["cat.png"])},
        "no-image": {"label": pa.array([1])},
        "text-label": {"image": pa.array([{"bytes": b"", "path": ""}]), "label": pa.array(["0"])},
        "flat-image": {"image": pa.array([b""]), "label": pa.array([0])},
        "list-image": {"image": pa.array([[1]]), "label": pa.array([0])},
    }.items():
        yield f"columns-{name}", _written(pa.table(columns))
    for place in range(20, len(whole) - 20, max((len(whole) - 40) // 8, 1)):
        damaged = whole[:place] + bytes(16) + whole[place + 16 :]
        yield f"zeroed-{place}", damaged[: len(damaged) - 3] + b"XXX"


def parquet_bomb(rows: int = 60_000_000) -> bytes:
    """A file of some kilobytes that decodes to `rows` images."""
    labels = pa.array(np.zeros(1_000_000, dtype=np.int64))
    images = pa.StructArray.from_arrays(
        [pa.nulls(1_000_000, pa.binary()), pa.nulls(1_000_000, pa.string())], names=["bytes", "path"]
    )
    table = pa.table({"image": images, "label": labels}, schema=_schema(("a",)))
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for _ in range(rows // 1_000_000):
            writer.write_table(table)
    return file.getvalue()


def _schema(classes: tuple[str, ...] | None) -> pa.Schema:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    if classes is None:
        return schema
    info = {"info": {"features": {"label": {"names": list(classes)}}}}
    return schema.with_metadata({"huggingface": json.dumps(info)})


def _table(labels: list[int], classes: tuple[str, ...] | None = ("a", "b", "c")) -> bytes:
    rows = [{"bytes": b"png", "path": "../../etc/passwd"}] * len(labels)
    schema = _schema(classes)
    return _written(pa.table({"image": pa.array(rows, schema.field("image").type), "label": labels}, schema=schema))


def _written(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _images() -> Iterator[tuple[str, bytes]]:
    """Images that are damaged, have other formats, or are much larger when decoded."""
    yield "png-bomb", _png(60_000, 60_000)
    yield "png-wide", _png(2**31 - 1, 1)
    yield "png-nothing", _png(0, 0)
    yield "png-cut", _png(8, 8)[:40]
    yield "png-sum", _png(8, 8).replace(b"IDAT", b"IDAX")
    yield "png-text-bomb", _png(8, 8, (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9)), whole=False)
    yield "gif-cut", b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0"
    bmp = struct.pack("<IHHIIiiHHIIiiII", 4054, 0, 0, 54, 40, 9, 9, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "bmp-cut", b"BM" + bmp + bytes(4)
    yield "heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    yield "avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(64)
    yield "tiff", b"II*\0\x08\0\0\0\0\0\0\0"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch canary) (w) file\n"
    yield "jpeg-cut", b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
    yield "jpeg-bomb", b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xd9"
    yield "webp-cut", b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\x7f"


def _png(width: int, height: int, extra: tuple[bytes, bytes] | None = None, *, whole: bool = True) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height))) if 0 < width * height < 10**4 else b"x"
    middle = chunk(*extra) if extra else b""
    body = chunk(b"IDAT", rows) if whole else b""
    return b"\x89PNG\r\n\x1a\n" + head + middle + body + chunk(b"IEND", b"")
