"""Class names on the command line: files of names, a search, and a typo of a local job."""

import json
from pathlib import Path

import pytest
import rich

from app.local.class_files import read_class_file
from app.local.cloning import Material, clone_files
from pnc_core.config import CloneConfig, NetworkSpec
from pnc_core.errors import ConfigError, UnknownClass
from tests.unit.cli.conftest import Run
from tests.unit.client.describing import Described

FILES = {
    "names.txt": "tench\ngoldfish\n\n",
    "LOC_synset_mapping.txt": "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n",
    "words.txt": "n01440764\ttench, Tinca tinca\nn01443537\tgoldfish, Carassius auratus\n",
    "list.json": '["tench", "goldfish"]',
    "imagenet_class_index.json": '{"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]}',
    "config.json": '{"model_type": "x", "id2label": {"0": "tench, Tinca tinca", "1": "goldfish, Carassius auratus"}}',
}


@pytest.mark.parametrize("name", FILES)
def test_published_files_give_classes_that_are_found_by_their_names(tmp_path: Path, name: str) -> None:
    from pnc_core.class_names import ClassNames

    (tmp_path / name).write_text(FILES[name])
    fields = read_class_file(tmp_path / name)
    names = ClassNames(fields["classes"], fields.get("class_aliases"))
    assert names.find("goldfish") == fields["classes"][1]
    if "n0" in FILES[name]:
        assert fields["classes"] == ["n01440764", "n01443537"]


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"a": "b"}', '{"0": []}', "\xff"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="expected a file of class names"):
        read_class_file(tmp_path / "names")


def test_a_file_of_names_becomes_part_of_the_spec(run: Run, described: Described, tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text(FILES["LOC_synset_mapping.txt"])
    done = run("models", "push", "fish", "weights.safetensors", "--classes", "map.txt")
    assert done.exit_code == 0, done.output
    spec = json.loads(described.sent["create_version"])["spec"]
    assert spec["classes"] == ["n01440764", "n01443537"]
    assert spec["class_aliases"]["n01443537"] == ["goldfish, Carassius auratus"]
    assert described.called.index("validate_spec") < described.called.index("create_model")


def test_classes_are_searched_in_the_version_of_an_alias(run: Run, described: Described) -> None:
    done = run("models", "classes", "digits@production", "gold", "fish")
    assert "#1" in done.stdout
    assert "Carassius auratus" in done.stdout
    assert described.called == ["get_model", "get_version", "list_classes"]
    assert run("models", "classes", "digits@staging").exit_code == 1


def test_a_version_is_shown_with_its_aliases_and_its_preprocessing(run: Run) -> None:
    shown = run("models", "show", "digits@1").stdout
    assert [line for line in shown.splitlines() if "aliases" in line and "production" in line]
    assert [line for line in shown.splitlines() if line.startswith("mean") and "0.3" in line]
    assert [line for line in shown.splitlines() if line.startswith("std") and "0.37" in line]
    listed = [line.split() for line in run("models", "show", "digits").stdout.splitlines()]
    assert [words for words in listed if words[:3] == ["1", "production", "ready"]]


def test_a_typo_of_a_local_job_is_refused_in_one_line_before_any_file_is_read() -> None:
    classes = tuple(f"kind of fish {n}" for n in range(1000))
    spec = NetworkSpec(architecture="cnn", classes=classes, input_size=(1, 8, 8), mean=(0.5,), std=(0.5,))
    gone = Path("no-such-file")
    with pytest.raises(UnknownClass, match="did you mean 'kind of fish 7'") as caught:
        clone_files(Material(gone, spec, gone, spec, gone), CloneConfig(classes=("kind of fsh 7",)), rich.get_console())
    assert len(str(caught.value)) < 200
