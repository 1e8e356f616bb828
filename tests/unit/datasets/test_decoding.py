"""Images are decoded elsewhere, to the same pixels; what goes wrong there stays there."""

import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.datasets.decoding import Decoders
from app.datasets.images import decode_image
from pnc_core.errors import DataError
from pnc_core.preprocessing import Geometry
from tests.corpus import corpus

SIZE = (3, 20, 30)
SEEN = [Geometry(SIZE)]


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (50, 40)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """One child at a time, so that a test knows which."""
    made = Decoders(children=1)
    made.start()
    yield made
    made.close()


def child_of(decoders: Decoders) -> int:
    (child,) = decoders._children._idle
    return child._process.pid


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_pixels_are_the_same(decoders: Decoders, kind: str) -> None:
    raw = encoded(kind)
    geometries = [
        *SEEN,
        Geometry((1, 8, 8)),
        Geometry((3, 24, 24), "shorter-side", 28, "bicubic"),
        Geometry((3, 24, 24), "shorter-side", 28, "bilinear", antialias=False),
    ]
    found, wanted = decoders.decode(raw, geometries, "body"), decode_image(raw, geometries, "body")
    for here, there, geometry in zip(wanted, found, geometries, strict=True):
        assert there.dtype == np.uint8
        assert there.shape == geometry.size
        assert np.array_equal(here, there)


def test_a_child_is_kept_for_the_next_image(decoders: Decoders) -> None:
    decoders.decode(encoded("PNG"), SEEN, "body")
    first = child_of(decoders)
    decoders.decode(encoded("PNG"), SEEN, "body")
    assert child_of(decoders) == first


@pytest.mark.parametrize("raw", [b"", b"GIF89a", encoded("PNG")[:-30], b"\x89PNG" * 1000])
def test_what_is_no_image_is_refused_in_the_same_words(decoders: Decoders, raw: bytes) -> None:
    with pytest.raises(DataError) as here:
        decode_image(raw, SEEN, "body")
    with pytest.raises(DataError) as there:
        decoders.decode(raw, SEEN, "body")
    assert str(there.value) == str(here.value)


def test_hostile_images_are_refused_and_the_child_goes_on(decoders: Decoders, tmp_path: Path) -> None:
    first, hostile = child_of(decoders), corpus(tmp_path / "canary")
    for file in (file for file in hostile if file.kind == "image"):
        with pytest.raises(DataError):
            decoders.decode(file.content, SEEN, file.name)
    assert child_of(decoders) == first


def test_a_child_that_crashes_takes_its_image_with_it_and_nothing_else(decoders: Decoders) -> None:
    decoders.decode(encoded("PNG"), SEEN, "body")
    crashed = child_of(decoders)
    os.kill(crashed, signal.SIGSTOP)  # it is in the middle of the image when it ends
    threading.Timer(0.3, os.kill, (crashed, signal.SIGKILL)).start()
    with pytest.raises(DataError, match="ended its process"):
        decoders.decode(encoded("PNG"), SEEN, "body")
    assert decoders.decode(encoded("PNG"), SEEN, "body")[0].shape == SIZE
    assert child_of(decoders) != crashed


def test_a_child_that_died_while_idle_is_no_images_fault(decoders: Decoders) -> None:
    decoders.decode(encoded("PNG"), SEEN, "body")
    dead = child_of(decoders)
    os.kill(dead, signal.SIGSEGV)
    decoders._children._idle[0]._process.wait()
    assert decoders.decode(encoded("PNG"), SEEN, "body")[0].shape == SIZE
    assert child_of(decoders) != dead


def test_a_child_that_does_not_answer_is_replaced(decoders: Decoders) -> None:
    decoders.decode(encoded("PNG"), SEEN, "body")
    stuck = child_of(decoders)
    decoders._children._idle[0]._socket.settimeout(0.2)
    os.kill(stuck, signal.SIGSTOP)
    with pytest.raises(DataError, match="TimeoutError"):
        decoders.decode(encoded("PNG"), SEEN, "body")
    assert decoders.decode(encoded("PNG"), SEEN, "body")[0].shape == SIZE


def test_an_image_that_needs_too_much_memory_is_refused(decoders: Decoders) -> None:
    few = Decoders(children=1, memory=640 * 1024**2)
    bomb = io.BytesIO()
    Image.new("I;16", (8192, 8191)).save(bomb, "PNG")  # 130 kB that become a gigabyte of numbers
    assert few.decode(encoded("PNG"), SEEN, "body")[0].shape == SIZE
    with pytest.raises(DataError, match=r"memory|ended its process"):
        few.decode(bomb.getvalue(), SEEN, "body")
    assert few.decode(encoded("PNG"), SEEN, "body")[0].shape == SIZE
    few.close()


def test_settings_are_none_of_a_childs_business(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_INTERNAL_KEY", "k" * 32)
    made = Decoders(children=1)
    made.decode(encoded("PNG"), SEEN, "body")
    assert b"PNC_" not in Path(f"/proc/{child_of(made)}/environ").read_bytes()
    made.close()
