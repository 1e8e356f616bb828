"""Images as people have them: files of every format, with orientation, transparency, pages and damage."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 12, 8
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Odd:
    """One file, and the pixels or the words that are expected of it."""

    name: str
    content: bytes
    pixels: Pixels | None = None
    """uint8 (H, W) or (H, W, 3); none: the file is refused."""
    refused: str = ""
    """A part of the message."""


def picture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Image.Image:
    """Colours of which no two corners are equal."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_pillow(raw: bytes, mode: str = "RGB") -> Pixels:
    """The pixels that Pillow decodes, turned by `ImageOps.exif_transpose`."""
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert(mode))


def on_white(raw: bytes, mode: str = "RGB") -> Pixels:
    """The same before a white ground."""
    with Image.open(io.BytesIO(raw)) as image:
        seen = ImageOps.exif_transpose(image).convert("RGBA")
    ground = Image.new("RGBA", seen.size, "white")
    return np.asarray(Image.alpha_composite(ground, seen).convert(mode))


def odd_images() -> list[Odd]:
    """All files."""
    return [*_formats(), *_turned(), *_transparent(), *_deep(), *_colours(), *_several(), *_loose(), *_refused()]


def _read(name: str, raw: bytes, how: Callable[..., Pixels] = as_pillow, mode: str = "RGB") -> Odd:
    return Odd(name, raw, how(raw, mode))


def _formats() -> Iterator[Odd]:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "PCX", "SGI", "QOI"):
        how = on_white if kind == "ICO" else as_pillow
        yield _read(kind, saved(picture(16, 16), kind, **({"lossless": True} if kind == "WEBP" else {})), how)
    yield _read("JPEG progressive", saved(picture(), "JPEG", progressive=True))
    yield _read("JPEG of 4:4:4", saved(picture(), "JPEG", subsampling=0, quality=100))
    yield _read("PNG interlaced", _interlaced(), as_pillow, "L")
    yield _read("WebP with loss", saved(picture(), "WEBP", quality=60))
    yield _read("BMP upside down", _bottom_up())
    for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield _read(f"TIFF {how}", saved(picture(), "TIFF", compression=how))


def _turned() -> Iterator[Odd]:
    for kind, options in (("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        for turn in range(1, 9) if kind in ("JPEG", "PNG") else (3, 6, 8):
            yield _read(f"{kind} with orientation {turn}", saved(picture(), kind, exif=_exif(turn), **options))
    for turn in (0, 9, 255):
        yield _read(f"JPEG with orientation {turn}", saved(picture(), "JPEG", exif=_exif(turn)))
    raw = saved(picture(), "JPEG", exif=_exif(6))
    broken = raw.replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert broken != raw
    yield Odd("JPEG with broken EXIF", broken, as_pillow(saved(picture(), "JPEG")))


def _transparent() -> Iterator[Odd]:
    alpha = picture().convert("RGBA")
    alpha.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)))
    greys = picture().convert("LA")
    greys.putalpha(128)
    for kind in ("PNG", "WEBP", "TIFF", "JPEG2000", "SGI", "QOI"):
        yield _read(
            f"{kind} with alpha", saved(alpha, kind, **({"lossless": True} if kind == "WEBP" else {})), on_white
        )
    yield _read("PNG of greys with alpha", saved(greys, "PNG"), on_white, "L")
    yield _read("PNG all transparent", saved(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG"), on_white)
    yield _read("PNG palette with transparency", saved(picture().quantize(8), "PNG", transparency=3), on_white)
    yield _read("PNG palette of many alphas", saved(picture().quantize(4), "PNG", transparency=bytes((0, 9, 99, 255))),
                on_white)  # fmt: skip
    yield _read("GIF with transparency", saved(picture().quantize(8), "GIF", transparency=2), on_white)
    yield _read("PNG with a transparent colour", saved(picture(), "PNG", transparency=picture().getpixel((0, 0))),
                on_white)  # fmt: skip
    yield _read("PNG with a transparent grey", saved(picture().convert("L"), "PNG", transparency=7), on_white, "L")


def _deep() -> Iterator[Odd]:
    greys = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    scaled = ((greys.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    for kind in ("PNG", "TIFF", "PPM"):
        yield Odd(f"{kind} of greys of 16 bits", saved(Image.fromarray(greys), kind), scaled)
    yield Odd("TIFF of greys of 32 bits", saved(Image.fromarray(greys.astype(np.int32)), "TIFF"), scaled)
    colours = np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(">u2")
    yield _read("PNG of colours of 16 bits", _png(WIDTH, HEIGHT, 16, 2, _rows(colours.tobytes(), 6 * WIDTH)))
    yield _read("PNG of one bit", saved(picture().convert("1"), "PNG"), as_pillow, "L")
    yield _read("TIFF of one bit", saved(picture().convert("1"), "TIFF", compression="group4"), as_pillow, "L")
    yield _read("PNG of four bits", saved(picture().quantize(16), "PNG", bits=4))


def _colours() -> Iterator[Odd]:
    yield _read("JPEG of CMYK", saved(picture().convert("CMYK"), "JPEG"))
    yield _read("TIFF of CMYK", saved(picture().convert("CMYK"), "TIFF"))
    yield _read("JPEG of greys", saved(picture().convert("L"), "JPEG"), as_pillow, "L")
    yield _read("PGM", saved(picture().convert("L"), "PPM"), as_pillow, "L")
    yield _read("PBM", saved(picture().convert("1"), "PPM"), as_pillow, "L")
    yield _read("PNG palette", saved(picture().quantize(8), "PNG"))
    yield _read("TIFF of YCbCr", saved(picture().convert("YCbCr"), "TIFF"))
    yield _read("one pixel", saved(picture(1, 1), "PNG"))
    yield _read("wide", saved(picture(1, 3000), "PNG"))


def _several() -> Iterator[Odd]:
    first, more = picture(seed=4), [picture(seed=5), picture(seed=6)]
    many = {"save_all": True, "append_images": more}
    yield _read("GIF animated", saved(first, "GIF", duration=50, **many))
    yield _read("WebP animated", saved(first, "WEBP", lossless=True, duration=50, **many), on_white)
    yield _read("PNG animated", saved(first, "PNG", duration=50, **many))
    yield _read("TIFF of three pages", saved(first, "TIFF", **many))
    yield _read("MPO of a telephone", saved(first, "MPO", **many))


def _loose() -> Iterator[Odd]:
    raw = saved(picture(), "PNG")
    yield _read("PNG with bytes after its end", raw + b"more" * 9)
    raw = saved(picture(), "JPEG")
    yield Odd("JPEG with bytes after its end", raw + bytes(99), as_pillow(raw))
    yield _read("JPEG with a long comment", saved(picture(), "JPEG", comment=b"x" * 60_000))
    yield _read("PNG with a profile of colours", saved(picture(), "PNG", icc_profile=b"no profile"))


def _refused() -> Iterator[Odd]:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000", "QOI"):
        raw = saved(picture(64, 64), kind)
        yield Odd(f"{kind} cut in the middle", raw[: len(raw) // 2], refused="damaged")
    yield Odd("empty", b"", refused="an empty file")
    yield Odd("HEIC", struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(99), refused="HEIC")
    yield Odd("HEIC by its second brand", struct.pack(">I", 24) + b"ftypmsf2\0\0\0\0heix" + bytes(99), refused="HEIC")
    yield Odd("AVIF", saved(picture(), "AVIF"), refused="AVIF")
    for start in (b"", b'<?xml version="1.0"?>\n<!-- drawn -->\n', b"\xef\xbb\xbf\n"):
        yield Odd(f"SVG after {len(start)} bytes", start + b'<svg xmlns="http://www.w3.org/2000/svg"/>', refused="SVG")
    yield Odd("web page", b"<!DOCTYPE html><title>404</title>", refused="a web page")
    yield Odd("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", refused="PostScript")
    yield Odd("PDF", saved(picture(), "PDF"), refused="PDF")
    yield Odd("Photoshop", b"8BPS\0\1" + bytes(40), refused="Photoshop")
    yield Odd("TGA", saved(picture(), "TGA"), refused="damaged")
    yield Odd("video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(40), refused="a video")
    yield Odd(
        "pointer of LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", refused="Git LFS"
    )
    yield Odd("text", b"cat\n", refused="damaged")
    yield Odd("TIFF of fractions", saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), refused="mode F")
    negative = Image.fromarray(np.full((2, 2), -3, np.int32))
    yield Odd("TIFF of negative greys", saved(negative, "TIFF"), refused="greys from 0 to 65535, got -3")
    yield Odd("more pixels than allowed", _png(9000, 9000, 8, 0, b"x"), refused="at most 67108864 pixels")
    yield Odd("a thousand times more pixels", _png(2**31 - 1, 9000, 8, 0, b"x"), refused="at most 67108864 pixels")


def _exif(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    return exif


def _rows(content: bytes, length: int) -> bytes:
    return zlib.compress(b"".join(b"\0" + content[at : at + length] for at in range(0, len(content), length)))


def _png(width: int, height: int, bits: int, colour: int, data: bytes, interlaced: int = 0) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _interlaced() -> bytes:
    """Adam7: seven passes, each with its own rows."""
    pixels = np.asarray(picture(8, 8).convert("L"))
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = (row.tobytes() for y, x, down, right in passes for row in pixels[y::down, x::right])
    return _png(8, 8, 8, 0, zlib.compress(b"".join(b"\0" + row for row in rows)), 1)


def _bottom_up() -> bytes:
    """A BMP with a negative height, whose first row is the upper one."""
    pixels = np.asarray(picture())[:, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, -HEIGHT, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + head + pixels
