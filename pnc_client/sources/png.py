"""Pixels to PNG files, with the standard library alone: the client works without numpy and Pillow."""

import struct
import zlib

_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's numbers of greys, greys with alpha, colours, and colours with alpha, by channels."""


def png_of(pixels: bytes | memoryview, height: int, width: int, channels: int, bits: int = 8) -> bytes:
    """A PNG file without loss.

    Args:
        pixels: Rows from the top, channels last; numbers of 16 bits with the high byte first.
        height: Rows.
        width: Columns.
        channels: 1 to 4.
        bits: 8 or 16 a channel.

    References:
        PNG, third edition (W3C, 2025), sections 4 and 5.
    """
    length = width * channels * bits // 8
    rows = b"".join(b"\0" + pixels[at : at + length] for at in range(0, height * length, length))
    head = struct.pack(">IIBBBBB", width, height, bits, _COLOURS[channels], 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
