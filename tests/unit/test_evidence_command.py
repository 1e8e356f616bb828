import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import app as app_package
from app.cli import app
from app.evidence.images import read_images
from app.evidence.report import _left_out, plain
from app.evidence.trials import read_trials
from pnc_client.parquet import write_parquet
from pnc_core.analysis.curves import position_curve
from pnc_core.analysis.evaluation import evaluate
from pnc_core.config import Position
from pnc_core.errors import DataError
from pnc_core.images import ImageSet
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach
from pnc_core.preprocessing import Geometry
from tests.unit.pnc_core import nets

torch.set_num_threads(1)
CLASSES = tuple("abcdef")
PICTURES = {f"{name}.{suffix}" for name in ("accuracy", "similarity") for suffix in ("png", "svg")}


@dataclass(frozen=True)
class Files:
    """What a user has on disk: a target that knows a, b, c, a source that knows d, e, f, and images."""

    root: Path
    target: nets.Network
    source: nets.Network
    bundle: Bundle
    images: ImageSet

    def run(self, *changes: str, bundle: str = "full", data: str = "images", out: str = "out") -> Result:
        options = {"target": "target.safetensors", "source": "source.safetensors", "data": data, "out": out}
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(self.root / value))]
        return CliRunner().invoke(
            app, ["evidence", str(self.root / f"{bundle}.safetensors"), *arguments, "--seeds", "0", *changes]
        )

    def evidence(self, out: str = "out") -> Any:
        return json.loads((self.root / out / "evidence.json").read_text())


def _png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    root = tmp_path_factory.mktemp("evidence")
    target = nets.network("cnn", 8, 1, classes="abc", width=4)
    source = nets.network("cnn", 8, 1, classes="def", width=4)
    nets.randomised(source[0], seed=1)
    pixels = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, torch.arange(60) % 6, CLASSES)
    position = Position(target="blocks.1", source="blocks.1")
    bundle = nets.hand_made(target, source, images, position, ("e", "d"), "router")
    bundle.write(root / "full.safetensors")
    bundle.thin().write(root / "thin.safetensors")
    for name, (network, _) in {"target": target, "source": source}.items():
        safetensors.torch.save_file(network.state_dict(), root / f"{name}.safetensors")
    for number, (image, label) in enumerate(zip(pixels, images.labels.tolist(), strict=True)):
        folder = root / "images" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(_png(image))
    rows = [(CLASSES[label], _png(image)) for image, label in zip(pixels, images.labels.tolist(), strict=True)]
    write_parquet(root / "images.parquet", rows, CLASSES)
    return Files(root, target, source, bundle, images)


def test_numbers_and_pictures_are_written(files: Files) -> None:
    done = files.run(out="first")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (files.root / "first").iterdir()} == {"evidence.json", *PICTURES}
    found = files.evidence("first")
    judged = evaluate(attach(files.target[0], files.bundle), files.images)
    assert {name: found["composed"][name] for name in vars(judged)} == pytest.approx(vars(judged), abs=1e-6)
    assert found["images"] == dict.fromkeys("abced", 10)
    assert found["similarity"]["rows"] == ["e", "d", "f"]
    assert found["similarity"]["columns"] == ["e", "d"]
    assert np.shape(found["similarity"]["module"]) == (3, 2)
    assert found["verified"]["numbers"] == files.bundle.manifest.sizes.module
    assert found["restored"] == {"bit_for_bit": True, "max_logit_difference": 0}
    assert found["oracle"]["average"] >= found["composed"]["average"]
    assert found["multiply_accumulates"]["composed"] > found["multiply_accumulates"]["target"]
    assert (found["masking"], found["positions"]) == ([], [])
    assert found["residue"] is None  # of three classes two were cloned: one is left
    assert f"{found['similarity']['transferability']:.4f}" in done.output


def test_thin_and_full_folder_and_parquet_say_the_same(files: Files) -> None:
    assert files.run(out="one").exit_code == 0
    assert files.run(bundle="thin", data="images.parquet", out="two").exit_code == 0
    one, two = files.evidence("one"), files.evidence("two")
    assert (one.pop("payload"), two.pop("payload")) == ("full", "thin")
    assert (one.pop("verified")["tensors"] > 0, two.pop("verified")["tensors"]) == (True, 0)
    assert one == two
    for name in PICTURES:
        assert (files.root / "one" / name).read_bytes() == (files.root / "two" / name).read_bytes()


def test_what_is_left_of_other_classes_is_told(files: Files) -> None:
    position = Position(target="blocks.1", source="blocks.1")
    nets.hand_made(files.target, files.source, files.images, position, ("e",)).write(files.root / "one.safetensors")
    done = files.run(bundle="one", out="left")
    assert done.exit_code == 0, done.output
    found = files.evidence("left")["residue"]
    assert (found["classes"], found["images"], found["chance"]) == (["d", "f"], 10, 0.5)
    for name in ("source", "target", "module", "together", "slices", "random"):
        assert 0 <= found[name]["accuracy"] <= 1
    assert found["added"] == pytest.approx(found["together"]["accuracy"] - found["target"]["accuracy"], abs=1e-6)
    assert f"{found['module']['accuracy']:.4f} ± {found['module']['spread']:.4f}" in done.output


def test_the_masking_curve_is_at_the_bundle_s_position(files: Files) -> None:
    done = files.run("--seeds", "1", out="masking")
    assert done.exit_code == 0, done.output
    points = files.evidence("masking")["masking"]
    assert len(points) == 14
    assert {p["localizer"] for p in points} == {"log-odds", "random"}
    assert (files.root / "masking" / "masking.svg").stat().st_size > 1000


TRIAL = {"round": 0, "old": 0.9, "new": 0.9, "score": 0.9, "parameters": 100, "seconds": 1.0}
TRIALS = [
    {**TRIAL, "target_position": "blocks.0", "source_position": "blocks.0"},
    {**TRIAL, "target_position": "blocks.1", "source_position": "blocks.1", "score": 0.95, "parameters": 200},
]


def test_a_job_s_trials_become_the_position_curve(files: Files) -> None:
    (files.root / "trials.json").write_text(json.dumps(TRIALS))
    done = files.run("--trials", str(files.root / "trials.json"), out="positions")
    assert done.exit_code == 0, done.output
    assert [p["target_position"] for p in files.evidence("positions")["positions"]] == ["blocks.0", "blocks.1"]
    assert (files.root / "positions" / "positions.png").stat().st_size > 1000


def test_trials_of_the_service_s_answer_are_the_newest_of_all_attempts(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    first = [{**row, "attempt": 1} for row in (*TRIALS, {**TRIALS[0], "round": 1, "score": 0.5})]
    resumed = {**TRIALS[0], "round": 1, "attempt": 2, "score": 0.7}  # what was screened is not reported again
    rows = [{**row, "id": f"trl_{number}", "macs": None} for number, row in enumerate((*first, resumed))]
    path.write_text(json.dumps({"data": rows, "has_more": False, "next_cursor": None}))
    found = [(trial.target_position, trial.round, trial.score) for trial in read_trials(path)]
    assert found == [("blocks.0", 0, 0.9), ("blocks.1", 0, 0.95), ("blocks.0", 1, 0.7)]
    assert [point.screened for point in position_curve(read_trials(path))] == [0.9, 0.95]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[{}]", "3", '{"data": [{"round": 1}]}', "\x00\xff"])
def test_a_file_that_holds_no_trials_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trials.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"trials\.json: expected a JSON list of trials"):
        read_trials(path)


def test_one_page_of_trials_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    path.write_text(json.dumps({"data": TRIALS, "has_more": True}))
    with pytest.raises(ValueError, match="one page of several"):
        read_trials(path)


def _fails(done: Result, *words: str) -> None:
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert done.output.count("error:") == 1
    for word in words:
        assert word in done.output.replace("\n", " ")


def test_networks_the_wrong_way_round_are_named(files: Files) -> None:
    _fails(files.run("--target", str(files.root / "source.safetensors")), "made for the target", "sha256:")
    _fails(files.run("--source", str(files.root / "target.safetensors")), "module.blocks", "another network")
    _fails(files.run("--source", str(files.root / "target.safetensors"), bundle="thin"), "expected the source sha256:")


def test_a_file_that_is_no_bundle_or_no_weights_is_refused(files: Files) -> None:
    _fails(files.run(bundle="source"), "bundle: expected the metadata key")
    _fails(files.run("--target", str(files.root / "full.safetensors")), "weights: expected the")


def test_a_changed_bundle_is_refused_by_tensor(files: Files) -> None:
    tensors = {**files.bundle.tensors, "module.fc.bias": files.bundle.tensors["module.fc.bias"] + 1}
    Bundle(files.bundle.manifest, tensors).write(files.root / "changed.safetensors")
    _fails(files.run(bundle="changed", out="never"), "'module.fc.bias' to be a bit-for-bit slice")
    assert not (files.root / "never" / "evidence.json").exists()


def test_images_that_are_missing_or_none_are_named(files: Files) -> None:
    (files.root / "empty").mkdir()
    _fails(files.run(data="empty"), "one folder per class")
    for name, classes, words in (("others", "xy", "got none"), ("half", "abc", "the cloned classes ['e', 'd']")):
        for cls in classes:
            folder = files.root / name / cls
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(_png(files.images.images[0]))
        _fails(files.run(data=name), words)
    (files.root / "half" / "a" / "1.png").write_bytes(b"no image")
    _fails(files.run(data="half"), "a/1.png: expected an image (PNG, JPEG")
    _fails(files.run(data="full.safetensors"), "got a file that ends with .safetensors")


def test_a_path_that_is_not_there_is_a_usage_error(files: Files) -> None:
    done = files.run(data="nowhere")
    assert done.exit_code == 2
    assert "nowhere" in done.output.replace("\n", "")


def test_what_is_not_installed_is_named(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.startswith(("app.evidence", "app.plots"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("evidence", "plots"):
        monkeypatch.delattr(app_package, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    _fails(files.run(), "pip install 'pnc-zoo[server,plots]'")


def test_only_the_asked_for_classes_are_read_in_their_order(files: Files) -> None:
    steps: list[int] = []
    for source in ("images", "images.parquet"):
        found = read_images(files.root / source, ("f", "a"), [Geometry((1, 8, 8))], steps.append)
        wanted = files.images.only(("f", "a"))
        assert found.classes == ("f", "a")
        for label in (0, 1):
            assert torch.equal(found.images[found.labels == label], wanted.images[wanted.labels == label])
    assert steps == [*range(1, 21), *range(1, 21)]


def test_columns_and_names_of_images_can_be_given(files: Files) -> None:
    rows = {"shot": [_png(image) for image in files.images.images], "what": files.images.labels.tolist()}
    pq.write_table(pa.table(rows), files.root / "odd.parquet")
    _fails(files.run(data="odd.parquet", out="odd"), "--label-column")
    named = ("--image-column", "shot", "--label-column", "what", "--class-names", ",".join(CLASSES))
    done = files.run(*named, data="odd.parquet", out="odd")
    assert done.exit_code == 0, done.output
    assert files.run(out="plain").exit_code == 0
    assert files.evidence("odd") == files.evidence("plain")


def test_an_image_that_cannot_be_decoded_costs_only_its_row(files: Files) -> None:
    root = files.root / "damaged"
    for name in ("a", "f"):
        (root / name).mkdir(parents=True)
        for file in sorted((files.root / "images" / name).iterdir())[:3]:
            (root / name / file.name).write_bytes(file.read_bytes())
    (root / "a" / "cut.png").write_bytes(_png(files.images.images[0])[:40])
    (root / "f" / "phone.heic").write_bytes(b"x")
    notes: list[str] = []
    found = read_images(root, ("f", "a"), [Geometry((1, 8, 8))], note=notes.append)
    assert found.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert notes[0].startswith("2 images are left out; the first is f/phone.heic: it is HEIC")


def test_images_come_to_the_network_s_size_and_channels(files: Files) -> None:
    assert read_images(files.root / "images", ("a",), [Geometry((3, 4, 6))]).images.shape == (10, 3, 4, 6)


def test_no_image_of_the_classes_is_refused(files: Files) -> None:
    with pytest.raises(DataError, match=r"images: expected images of the classes \['z'\]"):
        read_images(files.root / "images", ("z",), [Geometry((1, 8, 8))])


def test_images_without_labels_are_read_where_none_are_wanted(files: Files) -> None:
    loose, bare = files.root / "loose", files.root / "bare.parquet"
    loose.mkdir()
    (first, *_) = sorted((files.root / "images").iterdir())
    for file in first.iterdir():
        (loose / file.name).write_bytes(file.read_bytes())
    pq.write_table(pq.read_table(files.root / "images.parquet").drop_columns("label"), bare)
    for source, count in ((loose, 10), (bare, len(files.images)), (files.root / "images.parquet", len(files.images))):
        assert len(read_images(source, ("a", "f"), [Geometry((1, 8, 8))], labelled=False)) == count
    for source in (loose, bare):
        with pytest.raises(DataError, match=r"expected images with labels, got images without; .*labels=false"):
            read_images(source, ("a", "f"), [Geometry((1, 8, 8))])


def test_another_parquet_file_is_refused(files: Files) -> None:
    pq.write_table(pa.table({"x": [1]}), files.root / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: expected a column of image files, got x: int64"):
        read_images(files.root / "other.parquet", ("a",), [Geometry((1, 8, 8))])


def test_what_is_no_number_becomes_null() -> None:
    assert plain({"a": (float("nan"), 1 / 3, 2), "b": "nan"}) == {"a": [None, 0.333333, 2], "b": "nan"}


def test_a_small_p_value_is_not_rounded_to_nothing() -> None:
    assert plain({"p": 2**-40, "none": 0.0}) == {"p": 9.09495e-13, "none": 0.0}
    reading = {"accuracy": 0.5, "spread": 0.1}
    sides = dict.fromkeys(("target", "together", "module", "slices", "random", "source"), reading)
    rows = _left_out(plain({**sides, "chance": 0.5, "added": 0.1, "p_added": 2**-40}))
    assert rows["added by the module"] == "+0.1000 (p = 9.1e-13)"
