"""`pnc models push --check PATH`: the check on this machine, before anything is sent."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
from PIL import Image

from app.local.bringing import NOT_SCALED, Wanted, brought
from app.local.checking import checked
from app.models.advice import options
from pnc_client.parquet import write_parquet
from pnc_client.schemas.checks import VersionCheck
from pnc_core.images import ImageSet
from tests.unit.cli.conftest import Run
from tests.unit.pnc_core.stripes import CLASSES, SPEC, drawn, trained


def rows(images: ImageSet) -> Iterator[tuple[str, bytes]]:
    """Class name and PNG file of each image."""
    for pixels, label in zip(images.images, images.labels.tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
        yield images.classes[label], file.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights of a trained network, and labelled images."""
    folder = tmp_path_factory.mktemp("files")
    safetensors.torch.save_file(trained(SPEC, 30).state_dict(), folder / "stripes.safetensors")
    write_parquet(folder / "stripes.parquet", rows(drawn(300, 1)), CLASSES)
    return folder / "stripes.safetensors", folder / "stripes.parquet"


def test_a_right_network_has_an_accuracy_with_its_interval(files: tuple[Path, Path]) -> None:
    spec, result = checked(SPEC, *files, note=lambda text: pytest.fail(text))
    found = VersionCheck.model_validate(result)
    assert (spec, found.outcome, found.images, found.cause) == (SPEC, "fine", 300, None)
    assert found.accuracy is not None
    assert found.low is not None
    assert 0.9 < found.low < found.accuracy


def test_mean_and_std_that_are_not_given_are_found(files: tuple[Path, Path]) -> None:
    fields = {"architecture": "cnn", "classes": ",".join(CLASSES), "input_size": "3x8x8"}
    wanted = Wanted(files[0].with_suffix(".json"), fields, ("width=8",), scaling_later=True)
    notes: list[str] = []
    with brought(files[0], wanted, notes.append) as (spec, file):
        assert (spec.mean, spec.std) == tuple((value,) * 3 for value in NOT_SCALED)
        found, result = checked(spec, file, files[1], notes.append, scaling=True)
    assert (found.mean, found.std, result["outcome"]) == (SPEC.mean, SPEC.std, "fine")
    assert "found mean and std 0.5 and 0.5: --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5; accuracy" in notes[0]


def test_a_given_mean_is_not_replaced_and_the_result_says_what_to_do(files: tuple[Path, Path]) -> None:
    wrong = replace(SPEC, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec, result = checked(wrong, *files, note=lambda text: pytest.fail(text))
    assert (spec, result["outcome"]) == (wrong, "suspect")
    assert "push again with --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5" in result["detail"]


def test_the_command_asks_a_worker_for_a_dataset(run: Run) -> None:
    result = run("models", "check", "low@1", "--dataset", "ds_1")
    assert result.exit_code == 0
    assert "check" in result.output


def test_changes_are_options_of_push() -> None:
    changes = {
        "options": {"shortcut": "pool", "stem_pool": True},
        "input_size": [3, 32, 32],
        "mean": [0.5, 0.25],
        "preprocessing": {"channel_order": "bgr"},
        "classes": ["a", "b"],
    }
    assert options(changes) == (
        "--set shortcut=pool --set stem_pool=true --input-size 3x32x32 --mean 0.5,0.25 --channel-order bgr "
        "--classes a,b"
    )
    assert options({"classes": ["a, b", "c"]}) == "--classes FILE with the names in the proposed order"
