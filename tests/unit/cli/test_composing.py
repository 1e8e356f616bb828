import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from app.cli.commands.deployments import shown
from app.demo import png_rows
from pnc_client.deployments import Deployment
from pnc_client.parquet import write_parquet
from pnc_client.schemas.deployments import PLAIN_SCALES, Observed
from pnc_core.config import Position
from pnc_core.images import ImageSet
from pnc_core.module.composed import attach
from pnc_core.module.composition import read_composition
from tests.unit.cli.conftest import Run
from tests.unit.pnc_core import nets

torch.set_num_threads(1)
POSITION = Position(target="blocks.1", source="blocks.1")
TARGET = nets.network("cnn", 8, 1, classes="abc", width=8)


@pytest.fixture
def files(run: Run) -> list[str]:
    """A target, two bundles of one source, and images of all five classes, in the command's folder."""
    source = nets.network("cnn", 8, 1, classes="de", width=8)
    nets.randomise(source[0].parameters())
    generator = torch.Generator().manual_seed(0)
    images = ImageSet(
        torch.randint(0, 256, (150, 1, 8, 8), dtype=torch.uint8, generator=generator),
        torch.arange(150) % 5,
        tuple("abcde"),
    )
    for name in "de":
        nets.hand_made(TARGET, source, images, POSITION, (name,), "router").write(f"{name}.safetensors")
    nets.hand_made(TARGET, source, images, POSITION, ("e",), "router").thin().write("thin.safetensors")
    save_file(TARGET[0].state_dict(), "target.safetensors")
    save_file(source[0].state_dict(), "source.safetensors")
    Path("target.json").write_text(json.dumps(dataclasses.asdict(TARGET[1])))
    write_parquet(Path("images.parquet"), png_rows(images), images.classes)
    new = images.only(("e",))
    write_parquet(Path("new.parquet"), png_rows(new), new.classes)
    return ["compose", "target.safetensors", "d.safetensors", "e.safetensors", "--dataset", "images.parquet"]


def test_a_composition_is_made_and_fits_its_modules(run: Run, files: list[str]) -> None:
    done = run(*files, "--keep-anyway", "--source", "source.safetensors", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert set(answer["verdict"]["figures"]) == {"module", "plain", "ensemble", "probe", "alone"}
    made = read_composition("composition.safetensors")
    assert [*made.digests] == answer["modules"]
    composed = attach(TARGET[0], ["d.safetensors", "e.safetensors"], composition=made)
    assert {*composed.balance} == {tuple(numbers) for numbers in answer["balance"].values()}


def test_people_read_scales_and_verdict(run: Run, files: list[str]) -> None:
    done = run(*files, "--keep-anyway")
    assert done.exit_code == 0, done.output
    for text in ("scale", "no composition", "linear probe", "target alone", "can be extended"):
        assert text in done.stdout
    assert "all networks" not in done.stdout


def test_a_composition_is_extended_by_images_of_the_new_module(run: Run, files: list[str]) -> None:
    whole = run("compose", "target.safetensors", "d.safetensors", "--dataset", "images.parquet", "--head", "ridge",
                "--most-features", "20", "--keep-anyway", "--out", "one.safetensors")  # fmt: skip
    assert whole.exit_code == 1, whole.output
    assert "show no single image" in whole.stderr or "at least" in whole.stderr
    one = run("compose", "target.safetensors", "d.safetensors", "--dataset", "images.parquet", "--head", "ridge",
              "--most-features", "32", "--keep-anyway", "--out", "one.safetensors")  # fmt: skip
    assert one.exit_code == 0, one.output
    few = run(*files[:4], "--dataset", "new.parquet", "--extend", "one.safetensors", "--json")
    assert few.exit_code == 1
    assert json.loads(few.stdout)["error"]["code"] == "invalid_data"
    both = run(*files, "--extend", "one.safetensors", "--out", "two.safetensors", "--json")
    assert both.exit_code == 0, both.output
    assert json.loads(both.stdout)["origin"] == "extended"
    assert len(read_composition("two.safetensors").digests) == 2


def test_a_thin_bundle_needs_its_source(run: Run, files: list[str]) -> None:
    thin = [name.replace("e.safetensors", "thin.safetensors") if name == "e.safetensors" else name for name in files]
    without = run(*thin, "--keep-anyway", "--json")
    assert without.exit_code == 1
    assert json.loads(without.stdout)["error"]["code"] == "source_mismatch"
    done = run(*thin, "--keep-anyway", "--source", "source.safetensors", "--json")
    assert done.exit_code == 0, done.output
    wrong = run(*files, "--source", "target.safetensors", "--json")
    assert json.loads(wrong.stdout)["error"]["code"] == "source_mismatch"


def test_the_output_is_none_of_the_inputs(run: Run, files: list[str]) -> None:
    done = run(*files, "--out", "d.safetensors", "--json")
    assert done.exit_code != 0
    assert not Path("composition.safetensors").exists()


@pytest.mark.parametrize(
    ("composition", "warning", "word"), [("cmp_1", None, "cmp_1"), (None, PLAIN_SCALES, "out of balance")]
)
def test_a_deployment_shows_its_composition_or_the_warning(
    composition: str | None, warning: str | None, word: str
) -> None:
    observed = Observed(generation=2, problem=None, at=None)
    found = Deployment.model_validate(
        {
            "id": "dep_1", "name": "digits", "generation": 2, "observed": observed, "composition": composition,
            "desired": {"target": "low@1", "modules": ["mod_1", "mod_2"]}, "warning": warning,
            "created_at": "2026-01-31T09:00:00Z",
        }
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=300)
    console.print(shown(found))
    assert word in console.file.getvalue()  # type: ignore[attr-defined]
