from pathlib import Path

import pytest

from pnc_client.sources import Options, SourceError, open_images
from tests.unit.client.sources.makers import counts, folder


def _named(root: Path, text: str, name: str = "map.csv") -> Options:
    (root.parent / name).write_text(text, encoding="utf-8")
    return Options(classes=str(root.parent / name))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path / "x", ["n01/1.png", "n02/1.png", "n02/2.png", "n03/1.png"])


def test_a_table_renames_joins_and_leaves_out(root: Path) -> None:
    images = open_images(root, _named(root, "n01,tench\nn02,tench\nn03,\n"))
    assert counts(images) == {"tench": 3}
    assert [one.name for one in images.lost] == ["n03/1.png"]
    assert counts(open_images(root, _named(root, "0\tcock\n", "map.tsv"))) == {"cock": 1, "n02": 2, "n03": 1}
    with pytest.raises(SourceError, match=r"names of the classes \['n01', 'n02', 'n03'\], got cat"):
        open_images(root, _named(root, "cat,dog\n"))


def test_a_list_names_classes_in_their_order(root: Path) -> None:
    assert counts(open_images(root, _named(root, "a\nb\nc\n", "names.txt"))) == {"a": 1, "b": 2, "c": 1}
    assert counts(open_images(root, Options(classes=["a, b", "b", "c"]))) == {"a, b": 1, "b": 2, "c": 1}
    with pytest.raises(SourceError, match="expected 3 names"):
        open_images(root, Options(classes="a,b"))


def test_a_table_gives_classes_to_files(tmp_path: Path) -> None:
    root = folder(tmp_path / "x", ["1.png", "2.png", "3.png", "4.png"])
    images = open_images(root, _named(root, "id,breed\n1,cat\n2.png,dog\n3,cat\n"))
    assert images.classes == ["cat", "dog"]
    assert counts(images) == {"cat": 2, "dog": 1}
    assert [(one.name, one.reason) for one in images.lost] == [("4.png", "it has no label in the file of --classes")]
    second = open_images(root, _named(root, "width,file_name,label\n4,1.png,cat\n4,2.png,dog\n"))
    assert counts(second) == {"cat": 1, "dog": 1}


def test_files_of_another_form_are_refused(root: Path) -> None:
    for text, said in (("", "an empty file"), ("a,b\nc\n", "expected two columns")):
        with pytest.raises(SourceError, match=said):
            open_images(root, _named(root, text))
