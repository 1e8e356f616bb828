"""The form that adds a model: texts become a description, each fault stands at its field, and a check waits."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.errors import Invalid
from app.models import checks, validation
from app.models import service as models
from app.models.adding import fields
from app.models.adding.fields import FieldErrors
from app.zoo import Zoo
from tests.unit import seeds

TEXTS = {
    "architecture": "plain", "options": "width=8 bias=true", "classes": "0\n1\n2\n3\n4", "input_size": "1 x 8 x 8",
    "mean": "0.5", "std": "0.25", "resize": "squash", "resize_size": "", "interpolation": "bilinear",
    "channel_order": "rgb", "value_range": "0..1",
}  # fmt: skip


def description(outputs: int = 5, **changes: str) -> Any:
    return fields.description({**TEXTS, **changes}, outputs, {})


def faults(outputs: int = 5, **changes: str) -> dict[str, str]:
    with pytest.raises(FieldErrors) as caught:
        description(outputs, **changes)
    return caught.value.messages


def test_texts_become_a_description() -> None:
    spec = description()
    assert (spec.architecture, spec.options) == ("plain", {"width": 8, "bias": True})
    assert (spec.classes, spec.input_size, spec.mean, spec.std) == (seeds.LOW, (1, 8, 8), (0.5,), (0.25,))


def test_a_description_is_shown_as_the_texts_that_make_it() -> None:
    spec = description(resize="shorter-side", resize_size="12", channel_order="rgb", interpolation="bicubic")
    again = fields.description(fields.shown(spec.to_dict()) | {"channel_order": "rgb", "value_range": "0..1"}, 5, {})
    assert again == spec


@pytest.mark.parametrize(
    "text", ["0, 1, 2, 3, 4", '["0", "1", "2", "3", "4"]', '{"0": "0", "1": "1", "2": "2", "3": "3", "4": "4"}']
)
def test_classes_may_be_lines_commas_or_json(text: str) -> None:
    assert description(classes=text).classes == seeds.LOW


def test_one_number_stands_for_every_channel() -> None:
    assert description(input_size="3 x 8 x 8", mean="0.5", std="0.25, 0.5, 1").mean == (0.5, 0.5, 0.5)


def test_each_fault_stands_at_its_field() -> None:
    found = faults(
        classes="a\nb", input_size="8", mean="", std="x", options="width", architecture=" ", resize_size="no"
    )
    assert found.keys() == {"classes", "input_size", "mean", "std", "options", "architecture", "resize_size"}
    assert found["classes"].startswith("expected 5 names")
    assert all(text.startswith("expected") for text in found.values())


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("std", {"std": "0"}),
        ("mean", {"mean": "0.5, 0.5"}),
        ("classes", {"classes": "0\n0\n1\n2\n3"}),
        ("resize_size", {"resize_size": "4"}),
        ("channel_order", {"channel_order": "bgr"}),
    ],
)
def test_what_a_network_refuses_stands_at_its_field_too(field: str, changes: dict[str, str]) -> None:
    assert faults(**changes).keys() == {field}


def test_other_names_of_classes_are_kept_while_their_class_is_there() -> None:
    texts = {**TEXTS, "classes": "0\n1\n2\n3\nfive"}
    spec = fields.description(texts, 5, {"0": ["zero"], "4": ["four"]})
    assert spec.class_aliases == {"0": ("zero",)}


@pytest.mark.parametrize(("file", "name"), [("ResNet 20 (best).th", "resnet-20-best"), ("a.b.pth", "a.b"), ("...", "")])
def test_a_file_proposes_a_name(file: str, name: str) -> None:
    assert fields.name_of(file) == name


def _new(session: Session, zoo: Zoo) -> Any:
    models.create(session, name="low")
    upload = seeds.upload(session, zoo, seeds.tensors(1))
    return models.add_version(session, "low", upload_id=upload.id, spec=seeds.network())


def test_a_chosen_dataset_waits_for_the_version_and_is_not_replaced(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        chosen, newer = seeds.dataset(session, zoo), seeds.dataset(session, zoo)
        version = _new(session, zoo)
        checks.ask_when_ready(session, version, chosen)
        assert checks.claim(session, "w") is None
        assert checks.dataset_for(session, version.workspace, seeds.LOW) == newer
        lease = validation.claim_validation(session, "w")
        assert lease is not None
        validation.accept_version(session, lease, fingerprint="f", parameters=1, macs=1)
        assert version.checking == chosen.id
        assert checks.claim(session, "w") is not None


def test_a_rejected_version_waits_for_no_check(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        version = _new(session, zoo)
        checks.ask_when_ready(session, version, seeds.dataset(session, zoo))
        lease = validation.claim_validation(session, "w")
        assert lease is not None
        validation.reject_version(session, lease, {"code": "weights_mismatch", "detail": "other tensors"})
        assert version.checking is None


def test_a_dataset_without_the_classes_is_refused_at_once(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        version = _new(session, zoo)
        data = seeds.dataset(session, zoo)
        data.counts = {"cloud": 100}
        with pytest.raises(Invalid, match="expected at least 50 labelled images"):
            checks.ask_when_ready(session, version, data)
