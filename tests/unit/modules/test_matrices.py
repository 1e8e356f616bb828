"""Matrices of a module's page."""

from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from app.modules.matrices import matrices, matrix

CONFUSION = {
    "classes": ["0", "<b>", "7"],
    "before": [[3, 1, 0], [0, 4, 0], [2, 2, 0]],
    "after": [[4, 0, 0], [0, 3, 1], [0, 0, 4]],
}
SIMILARITY = {"rows": ["7", "8"], "columns": ["7"], "module": [[0.8], [-0.2]], "source": [[1.0], [0.1]]}


def parsed(picture: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{picture}</div>")


def test_before_and_after_are_shown_beside_each_other() -> None:
    shown = parsed(matrices({"confusion": CONFUSION}))
    titles = ["".join(caption.itertext()) for caption in shown.iter("figcaption")]
    assert titles == ["The target alone: 7 of 12 correct", "With the module: 11 of 12 correct"]
    before, after = shown.iter("svg")
    cells = [rect for rect in before.iter("rect") if rect.attrib["class"].startswith("cell")]
    assert [rect.attrib["fill-opacity"] for rect in cells][:3] == ["0.75", "0.25", "0.00"]
    assert len([rect for rect in after.iter("rect") if rect.attrib["class"] == "right"]) == 3
    assert "7 → <b>: 2" in ["".join(title.itertext()) for title in before.iter("title")]


def test_a_similarity_marks_what_is_below_zero_and_frames_what_should_be_high() -> None:
    module, source = parsed(matrices({"similarity": SIMILARITY})).iter("svg")
    assert [r.attrib["class"] for r in module.iter("rect")] == ["frame", "cell", "cell below", "right"]
    assert ["".join(t.itertext()) for t in module.iter("text")] == ["0.80", "-0.20", "7", "8", "7"]
    assert "1.00" in ["".join(t.itertext()) for t in source.iter("text")]


def test_a_module_that_was_not_judged_has_no_matrices() -> None:
    assert matrices({}) == ""


@pytest.mark.parametrize("count", [1, 50])
def test_a_matrix_stays_inside_its_frame(count: int) -> None:
    names = [f"a rather long name {i}" for i in range(count)]
    picture = parsed(matrix("title", [[1] * count] * count, names, names, shares=True))
    (svg,) = picture.iter("svg")
    left, top, wide, high = (float(number) for number in svg.attrib["viewBox"].split())
    for rect in svg.iter("rect"):
        assert left <= float(rect.attrib["x"]) <= left + wide - float(rect.attrib["width"])
        assert top <= float(rect.attrib["y"]) <= top + high - float(rect.attrib["height"])
    assert not [t for t in svg.iter("text") if t.attrib.get("class") != "name"] or count == 1
