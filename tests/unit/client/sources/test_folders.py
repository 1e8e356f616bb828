"""Folders and archives: every image has its class, and every skipped file is named."""

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest

from pnc_client.sources import Options, SourceError, open_images
from tests.unit.client.sources.makers import archive, counts, folder, png, tar

CLASSES = {
    "two folders": (["cat/1.png", "cat/2.png", "dog/1.png"], {"cat": 2, "dog": 1}),
    "a class of .bmp beside one of .png": (["cat/1.png", "dog/1.bmp", "dog/2.bmp"], {"cat": 1, "dog": 2}),
    ".jpg and .tif in one class": (["cat/1.jpg", "cat/2.tif", "dog/1.gif"], {"cat": 2, "dog": 1}),
    "endings of JPEG in upper case": (["cat/1.jfif", "cat/2.JPE", "dog/1.JPEG"], {"cat": 2, "dog": 1}),
    "a class one folder deeper": (["cat/1.png", "dog/a/1.png", "dog/b/2.png"], {"cat": 1, "dog": 2}),
    "a part of a class one deeper": (["cat/1.png", "cat/more/2.png", "dog/1.png"], {"cat": 2, "dog": 1}),
    "wnid/images": (["n01/images/1.JPEG", "n02/images/1.JPEG"], {"n01": 1, "n02": 1}),
    "a folder around all": (["pets/cat/1.png", "pets/dog/1.png"], {"cat": 1, "dog": 1}),
    "two folders around all": (["a/pets/cat/1.png", "a/pets/dog/1.png"], {"cat": 1, "dog": 1}),
    "one class": (["cat/1.png", "cat/2.png"], {"cat": 2}),
    "one class, one deeper": (["cat/images/1.png"], {"cat": 1}),
    "classes called like splits among others": (["train/1.png", "bus/1.png"], {"train": 1, "bus": 1}),
    "a split alone": (["train/cat/1.png", "train/dog/1.png"], {"cat": 1, "dog": 1}),
    "no folders": (["1.png", "2.png"], {None: 2}),
}


@pytest.mark.parametrize(("names", "expected"), CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tgz"])
def test_classes_are_those_of_the_folders(
    tmp_path: Path, kind: str, names: list[str], expected: dict[str | None, int]
) -> None:
    source = folder(tmp_path / "x", names) if kind == "folder" else archive(tmp_path / f"x.{kind}", names)
    images = open_images(source)
    assert counts(images) == expected
    assert images.classes == (None if None in expected else sorted(name for name in expected if name))
    assert images.skipped == []


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    for source in (folder(tmp_path / "x", ["cat/1.png", "dog/2.png"]), archive(tmp_path / "x.zip", ["cat/1.png"])):
        item = next(iter(open_images(source)))
        assert (item.name, item.label, item.raw) == ("cat/1.png", "cat", png(0))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_split_is_chosen_and_never_guessed(tmp_path: Path, kind: str) -> None:
    names = ["train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "test/3.png"]
    source = folder(tmp_path / "x", names) if kind == "folder" else archive(tmp_path / f"x.{kind}", names)
    with pytest.raises(SourceError, match=r"splits 'test', 'train', 'validation', none was chosen; give `--split NAME"):
        open_images(source)
    images = open_images(source, Options(split="train"))
    assert counts(images) == {"cat": 1, "dog": 1}
    assert images.notes == ["split train; 2 images of other splits are left out"]
    everything = open_images(source, Options(split="all"))
    assert counts(everything) == {"cat": 2, "dog": 1}
    assert [one.name for one in everything.lost] == ["test/3.png"]
    with pytest.raises(SourceError, match="got 'dev'"):
        open_images(source, Options(split="dev"))


def test_everything_that_is_left_out_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, ["cat/1.png", "cat/2.png", "loose.png", "dog/a.heic", "cat/b.svg", "cat/notes.txt"])
    for name in (".thumbs/1.png", "cat/._1.png", "__MACOSX/1.png", "cat/Thumbs.db"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "cat" / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (root / "cat" / "gone.png").symlink_to(root / "nowhere.png")
    images = open_images(root)
    assert counts(images) == {"cat": 2}
    assert {one.name: one.reason for one in images.lost} == {
        "loose.png": "it lies beside the folders of the classes",
        "dog/a.heic": "it is HEIC, which is not read; convert it to PNG or JPEG",
        "dog/": "a folder without an image that is read",
        "cat/b.svg": "it is SVG, which is not read; convert it to PNG or JPEG",
        "cat/empty.png": "it is an empty file",
        "cat/phone.jpg": "it is HEIC",
        "cat/gone.png": "it cannot be read: No such file or directory",
    }
    harmless = {one.name for one in images.skipped if one.harmless}
    assert harmless == {"cat/notes.txt", ".thumbs", "cat/._1.png", "__MACOSX", "cat/Thumbs.db"}


def test_names_of_two_systems_are_one_class(tmp_path: Path) -> None:
    names = [f"{unicodedata.normalize(form, 'café')}/{form}.png" for form in ("NFC", "NFD")]
    images = open_images(folder(tmp_path, names))
    assert counts(images) == {"café": 2}
    assert images.classes == ["café"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "x", ["cat/1.png", "dog/1.png"])
    (root / "dog" / "again").symlink_to(root)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "2.png").write_bytes(png(9))
    (root / "owl").symlink_to(tmp_path / "more")
    assert counts(open_images(root)) == {"cat": 1, "dog": 1, "owl": 1}


def test_sources_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="one folder per class"):
        open_images(folder(tmp_path / "x", ["cat/a.txt"]))
    with pytest.raises(SourceError, match=r"cat/a\.heic: it is HEIC"):
        open_images(folder(tmp_path / "y", ["cat/a.heic"]))
    with pytest.raises(SourceError, match="no such file"):
        open_images(tmp_path / "nothing")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match="expected a zip archive"):
        open_images(tmp_path / "x.zip")
    (tmp_path / "x.tar").write_bytes(os.urandom(2000))
    with pytest.raises(SourceError, match="expected a tar archive"):
        open_images(tmp_path / "x.tar")


def test_a_damaged_entry_costs_only_itself(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", ["cat/1.png", "cat/2.png"])
    with zipfile.ZipFile(path) as made:
        at = made.getinfo("cat/1.png").header_offset + 60
    raw = bytearray(path.read_bytes())
    raw[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    images = open_images(path)
    assert counts(images) == {"cat": 1}
    assert images.lost[0].name == "cat/1.png"
    assert "it cannot be unpacked: Bad CRC-32" in images.lost[0].reason


def test_a_folder_of_an_archive_is_that_archive(tmp_path: Path) -> None:
    archive(tmp_path / "images.zip", ["images/cat/1.png", "images/dog/1.png"])
    (tmp_path / "README.md").write_text("x")
    assert counts(open_images(tmp_path)) == {"cat": 1, "dog": 1}
    (tmp_path / "images.zip").rename(tmp_path / "train.zip")
    archive(tmp_path / "test.tgz", ["test/cat/1.png"])
    with pytest.raises(SourceError, match="one of the archives 'test', 'train', none was chosen"):
        open_images(tmp_path)
    assert counts(open_images(tmp_path, Options(split="train"))) == {"cat": 1, "dog": 1}
    assert counts(open_images(tmp_path, Options(split="test"))) == {"cat": 1}


def test_a_webdataset_has_one_sample_a_key(tmp_path: Path) -> None:
    first = {"a/1.jpg": png(1, "JPEG"), "a/1.cls": b"3\n", "a/2.cls": b"10", "a/2.png": png(2), "a/3.txt": b"text"}
    second = {"b.png": png(3), "b.json": b'{"label": 3}', "c.png": png(4), "d.png": png(5), "d.depth.png": png(6),
              "d.cls": b"3"}  # fmt: skip
    for number, files in enumerate((first, second)):
        tar(tmp_path / f"shard-{number:06}.tar", files)
    images = open_images(tmp_path)
    assert counts(images) == {"3": 3, "10": 1}
    assert images.classes == ["3", "10"]
    assert {one.name: one.reason for one in images.lost} == {
        "a/3.txt": "its sample has no image file that is read",
        "c.png": "it has no label",
        "d.depth.png": "its sample has another image, d.png",
    }
    assert counts(open_images(tmp_path / "shard-*0.tar")) == {"3": 1, "10": 1}
    assert counts(open_images(tmp_path, Options(classes="abcdefghijk".replace("", ",")[1:-1]))) == {"d": 3, "k": 1}


def test_splits_of_shards_are_in_their_names(tmp_path: Path) -> None:
    for name in ("train-0", "train-1", "test-0"):
        tar(tmp_path / f"{name}.tar", {"1.png": png(1), "1.cls": b"cat"})
    with pytest.raises(SourceError, match="splits 'test', 'train'"):
        open_images(tmp_path)
    assert counts(open_images(tmp_path, Options(split="train"))) == {"cat": 2}
