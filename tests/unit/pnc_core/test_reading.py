import io

import numpy as np
import pytest
from PIL import Image

from pnc_core.config import NetworkSpec
from pnc_core.errors import DataError
from pnc_core.formats import FORMATS, refused
from pnc_core.images import views_of
from pnc_core.reading import flattened, read_image
from tests.unit.pnc_core.odd_images import Odd, odd_images, on_white, picture, saved

ODD = odd_images()


def test_the_corpus_is_large_enough_and_has_every_format() -> None:
    assert len(ODD) >= 60
    assert {*FORMATS} <= {odd.name for odd in ODD if odd.pixels is not None}


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_an_image_is_read_as_pillow_reads_it_or_is_refused_by_name(odd: Odd) -> None:
    if odd.pixels is None:
        with pytest.raises(DataError) as error:
            read_image(odd.content)
        assert odd.refused in str(error.value)
        return
    image = read_image(odd.content)
    assert image.mode == ("RGB" if odd.pixels.ndim == 3 else "L")
    assert np.array_equal(np.asarray(image), odd.pixels)


def test_a_picture_that_was_opened_elsewhere_is_read_alike() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = saved(picture(), "PNG", exif=exif)
    with Image.open(io.BytesIO(raw)) as opened:
        assert np.array_equal(np.asarray(flattened(opened)), np.asarray(read_image(raw)))
        spec = NetworkSpec(architecture="x", classes=("a", "b"), input_size=(3, 12, 8), mean=(0,) * 3, std=(1,) * 3)
        seen = views_of(opened, [spec]).plain[0]
    assert np.array_equal(seen.permute(1, 2, 0).numpy(), np.asarray(read_image(raw)))
    alpha = saved(Image.new("RGBA", (3, 3), (0, 0, 0, 40)), "PNG")
    assert np.array_equal(np.asarray(read_image(alpha)), on_white(alpha))


def test_names_need_no_library_of_images() -> None:
    assert refused(b"") == "an empty file"
    assert refused(saved(picture(), "PNG")) is None
    assert refused(b"words") is None
