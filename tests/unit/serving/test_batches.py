"""Several images in one request: the same answers as alone, and a bad file is only its own problem."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.serving import images as routes
from tests.unit.serving import world
from tests.unit.serving.world import NAME, World

PATH = f"/v1/deployments/{NAME}/predict"
File = tuple[str, tuple[str, bytes, str]]


@pytest.fixture(scope="module")
def http(here: World) -> Iterator[httpx.Client]:
    here.want(here.modules[:1])
    settings = here.zoo.settings.model_copy(
        update={"request_outputs": 300, "max_image_bytes": 200_000, "waiting_bytes": 250_000}
    )
    with world.serving(settings) as (address, _), httpx.Client(base_url=f"http://{address}", timeout=60) as http:
        yield http


def _encoded(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _form(contents: list[bytes]) -> list[File]:
    return [("images", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]


def _pictures(here: World, count: int) -> list[bytes]:
    return [_encoded(image[0].numpy()) for image in here.images(count)]


def test_a_batch_has_the_answers_of_its_images_alone_in_their_order(here: World, http: httpx.Client) -> None:
    contents = _pictures(here, 9)
    answer = http.post(f"{PATH}/batch", files=_form(contents)).json()
    assert [one["name"] for one in answer["images"]] == [f"{number}.png" for number in range(9)]
    for content, one in zip(contents, answer["images"], strict=True):
        alone = http.post(PATH, content=content).json()
        assert answer["modules"] == alone["modules"]
        assert answer["target_fingerprint"] == alone["target_fingerprint"]
        assert [score["name"] for score in one["classes"]] == [score["name"] for score in alone["classes"]]
        for score, wanted in zip(one["classes"], alone["classes"], strict=True):
            assert score["logit"] == pytest.approx(wanted["logit"], abs=1e-4)
        assert one["problem"] is None


def test_a_file_that_is_no_image_is_a_problem_of_its_own(here: World, http: httpx.Client) -> None:
    first, last = _pictures(here, 2)
    answer = http.post(f"{PATH}/batch", files=_form([first, b"not an image", first[:40], last])).json()
    problems = [one["problem"] for one in answer["images"]]
    assert (problems[0], problems[3]) == (None, None)
    assert problems[1].startswith("1.png: expected")
    assert problems[2].startswith("2.png: expected")
    assert [len(one["classes"]) for one in answer["images"]] == [6, 0, 0, 6]
    alone = http.post(PATH, content=last).json()
    assert answer["images"][3]["classes"][0]["name"] == alone["classes"][0]["name"]
    none = http.post(f"{PATH}/batch", files=_form([b"x"])).json()
    assert [bool(one["problem"]) for one in none["images"]] == [True]


@pytest.mark.parametrize("path", [PATH, f"{PATH}/batch"])
def test_only_the_most_probable_classes_are_sent_when_asked(here: World, http: httpx.Client, path: str) -> None:
    def classes(**query: int) -> list[dict[str, Any]]:
        (content,) = _pictures(here, 1)
        if path == PATH:
            found: list[dict[str, Any]] = http.post(path, content=content, params=query).json()["classes"]
            return found
        return list(http.post(path, files=_form([content]), params=query).json()["images"][0]["classes"])

    every = classes()
    assert len(every) == 6
    assert sum(score["probability"] for score in every) == pytest.approx(1, abs=1e-5)
    assert classes(top=2) == every[:2]
    assert classes(top=99) == every
    assert http.post(path, content=b"", params={"top": 0}).status_code == 422


def test_the_request_chooses_modules_for_the_whole_batch(here: World, http: httpx.Client) -> None:
    answer = http.post(f"{PATH}/batch", files=_form(_pictures(here, 2)), params={"modules": ""}).json()
    assert answer["modules"] == []
    assert [len(one["classes"]) for one in answer["images"]] == [5, 5]
    missing = http.post(f"{PATH}/batch", files=_form(_pictures(here, 1)), params={"modules": "mod_none"})
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"content": b"\x89PNG"}, "at least one file"),
        ({"data": {"images": "text"}}, "form"),
        ({"files": [("images", (None, b"text"))]}, "form"),
        ({"content": b"--x\r\nbroken", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "form"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, "form"),
    ],
)
def test_a_body_that_is_no_form_of_files_is_refused_in_words(
    http: httpx.Client, body: dict[str, Any], words: str
) -> None:
    answer = http.post(f"{PATH}/batch", **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert words in answer.json()["detail"]


def test_a_request_has_a_largest_number_of_files_numbers_and_bytes(
    here: World, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (content,) = _pictures(here, 1)
    numbers = http.post(f"{PATH}/batch", files=_form([content] * 51))
    assert (numbers.status_code, numbers.json()["code"]) == (413, "too_large")
    assert "at most 50 images" in numbers.json()["detail"]
    large = http.post(f"{PATH}/batch", files=_form([bytes(150_000)] * 2))
    assert large.status_code == 413
    monkeypatch.setattr(routes, "MOST_IMAGES", 4)
    files = http.post(f"{PATH}/batch", files=_form([content] * 5))
    assert files.status_code == 422
    assert "at most 4 files" in files.json()["detail"]
    assert http.post(f"{PATH}/batch", files=_form([content] * 4)).status_code == 200


def test_all_memory_of_bodies_is_free_again(here: World, http: httpx.Client) -> None:
    """The bodies of all requests together are larger than the memory for bodies."""
    (content,) = _pictures(here, 1)
    for files in ([content, bytes(20_000)], [b"x", bytes(20_000)], [content] * 51 + [bytes(20_000)]):
        for _ in range(15):
            http.post(f"{PATH}/batch", files=_form(files))
    assert http.post(f"{PATH}/batch", files=_form([content])).status_code == 200
