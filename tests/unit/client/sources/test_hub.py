"""Data sets of the Hub, read from a cache as huggingface_hub keeps it."""

from pathlib import Path

import pyarrow as pa
import pytest
from huggingface_hub import constants

from pnc_client.sources import Options, SourceError, open_images
from pnc_client.sources.hub import fetched
from tests.unit.client.sources.makers import counts, named, pictures, png, table

COMMIT = "0" * 39 + "1"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def kept(cache: Path, name: str, revision: str = "main", commit: str = COMMIT) -> Path:
    """The folder of one commit in the cache."""
    home = cache / f"datasets--{name.replace('/', '--')}"
    reference = home / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_dataset_of_the_cache_needs_no_network(cache: Path) -> None:
    folder = kept(cache, "uoft-cs/cifar10")
    for split in ("train", "test"):
        columns = {"img": pictures(2), "label": pa.array([0, 1])}
        table(folder / "plain_text" / f"{split}-00000-of-00001.parquet", columns, named("cat", "dog", image="img"))
    (folder / "README.md").write_text("x")
    with pytest.raises(SourceError, match="splits 'test', 'train'"):
        open_images("hf://datasets/uoft-cs/cifar10")
    for place in ("hf://datasets/uoft-cs/cifar10", "hf://datasets/uoft-cs/cifar10@main/plain_text"):
        images = open_images(place, Options(split="test"))
        assert counts(images) == {"cat": 1, "dog": 1}
        assert images.notes[0] == "images from column img, labels from column label"


def test_folders_of_images_are_read_as_folders(cache: Path) -> None:
    folder = kept(cache, "me/pets")
    for name in ("cat", "dog"):
        (folder / "data" / name).mkdir(parents=True)
        (folder / "data" / name / "1.png").write_bytes(png())
    assert counts(open_images("hf://datasets/me/pets")) == {"cat": 1, "dog": 1}


def test_the_hub_s_own_parquet_stands_in_for_other_formats(cache: Path) -> None:
    (kept(cache, "me/scripted") / "loader.py").write_text("raise SystemExit")
    folder = kept(cache, "me/scripted", "refs/convert/parquet", "0" * 40)
    table(folder / "default" / "train" / "0000.parquet", {"image": pictures(1), "label": pa.array(["a"])})
    assert counts(open_images("hf://datasets/me/scripted")) == {"a": 1}


def test_other_places_are_refused_with_advice(cache: Path) -> None:
    with pytest.raises(SourceError, match="in the cache or at the Hub, got neither"):
        fetched("hf://datasets/nobody/nothing")
    with pytest.raises(SourceError, match="expected hf://datasets/OWNER/NAME"):
        fetched("hf://datasets/")
    (kept(cache, "me/words") / "train.csv").write_text("a,b\n")
    with pytest.raises(SourceError, match=r"expected the data set in the cache|got none; name a folder"):
        fetched("hf://datasets/me/words")
