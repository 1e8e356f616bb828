"""What the serving process runs, with networks on a GPU that is pretended."""

import logging

import pytest
import torch

from app.errors import Misconfigured
from app.serving.engine.modes import Mode
from app.serving.engine.programs import Branch, Trunk, put_together
from app.serving.main import create_serving_app
from app.zoo import Zoo
from pnc_core.analysis.evaluation import predict
from pnc_core.images import ImageSet
from pnc_core.module.composed import attach, without_modules
from tests.unit import pretended
from tests.unit.pnc_core import nets
from tests.unit.serving import world


@pytest.mark.parametrize("exact", [False, True])
def test_trunk_and_branches_keep_to_the_device(exact: bool, caplog: pytest.LogCaptureFixture) -> None:
    target, source = world.network("01234", 1), world.network("56789", 2)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = ImageSet(pictures, torch.arange(60) % 10, tuple("0123456789"))
    here = target, source, images, world.HERE
    bundles = [
        nets.hand_made(*here, ("5",), "affine", locality_gate=0.0),
        nets.hand_made(*here, ("6",), "router", inner=True),
        nets.hand_made(*here, ("7",), "joint"),
    ]
    with pretended.cuda(), caplog.at_level(logging.WARNING):
        target[0].to("cuda")
        trunk = Trunk(without_modules(*target), Mode(exact, device="cuda"))
        branches = [Branch(attach(trunk.target, bundle).attached[0], trunk) for bundle in bundles]
        program = put_together(trunk, branches)
        with torch.inference_mode():
            logits = program.answer(trunk.read(trunk.prepare(pictures), branches))
        assert isinstance(logits, pretended.OnCuda)
        wanted = predict(program.network, target[1], pictures)
    # What cannot be copied for speed is run as it is, with a warning: here everything can.
    assert not caplog.records
    assert float((logits.cpu() - wanted).abs().max()) < 1e-3 * float(wanted.abs().max())


def test_a_device_that_torch_cannot_use_is_refused_at_the_start(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Misconfigured, match="PNC_DEVICE: device: expected one that torch can use, got 'cuda'"):
        create_serving_app(zoo.settings.model_copy(update={"device": "cuda"}))
    create_serving_app(zoo.settings.model_copy(update={"device": "auto"}))
