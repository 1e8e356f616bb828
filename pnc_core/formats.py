"""Formats of image files: the ones that are read, and the names of others, found by the first bytes of a file.

This module needs no library for images, so that the client can name a file that it leaves out.
"""

from types import MappingProxyType

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "PCX", "SGI", "QOI")
"""Pillow's names of the formats that are read. Two kinds are left out: formats that start another program, such as EPS,
and formats without a mark at the beginning, such as TGA, for which Pillow may take any bytes."""
SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c", ".ico", ".pcx", ".sgi", ".rgb",
    ".rgba", ".bw", ".qoi",
})  # fmt: skip
"""Endings of the names of image files, in lower case."""
KNOWN = "PNG, JPEG, WebP, GIF, BMP, TIFF and others"
"""Formats for messages."""
EMPTY = "an empty file"
REFUSED_SUFFIXES = MappingProxyType({
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), "a raw photograph of a camera"),
    **dict.fromkeys((".eps", ".ps"), "PostScript"),
    **dict.fromkeys((".tga", ".icb", ".vda", ".vst"), "TGA"),
    ".pdf": "PDF", ".psd": "a Photoshop document", ".jxl": "JPEG XL",
})  # fmt: skip
"""Names of formats that hold pictures and are not read, by the ending of a file's name."""
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
_STARTS = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"SIMPLE  =", "FITS"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file"),
)
_MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "a web page"), (b"<html", "a web page"))
_RAW = (b"II*\x00\x10\x00\x00\x00CR",)
_LOOKED_AT = 1024
"""Bytes at the beginning of a file that are looked at."""


def refused(raw: bytes) -> str | None:
    """The name of a file's kind if it is known and is not read; none: a format that is read, or an unknown one.

    Args:
        raw: The file's bytes, or at least the first thousand of them.
    """
    head = raw[:_LOOKED_AT]
    if not head:
        return EMPTY
    if head[4:8] == b"ftyp":
        brands = (head[place : place + 4] for place in (8, *range(16, 64, 4)))
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "a video")
    if head.startswith(_RAW):
        return REFUSED_SUFFIXES[".cr2"]
    found = next((name for start, name in _STARTS if head.startswith(start)), None)
    if found is not None or not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return found
    text = head.lower()
    return next((name for start, name in _MARKUP if start in text), "XML or HTML")
