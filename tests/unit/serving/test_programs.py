"""Networks made ready to be run: faster, the same answers, and the target left alone."""

import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
from pydantic import ValidationError

from app.process.resources import processors
from app.serving.engine.copies import TOLERANCE
from app.serving.engine.modes import Mode
from app.serving.engine.programs import Branch, Program, Trunk, put_together
from app.serving.main import limits
from app.settings import Settings
from pnc_core.identity import fingerprint
from pnc_core.images import preprocess
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach, without_modules
from pnc_core.module.head import SHUT
from tests.unit.serving.world import World


def _program(here: World, mode: Mode, bundles: tuple[Bundle, ...] = ()) -> Program:
    trunk = Trunk(without_modules(*here.target), mode)
    return put_together(trunk, [Branch(attach(trunk.target, bundle).attached[0], trunk) for bundle in bundles])


def _answer(program: Program, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return program.answer(program.trunk.read(program.trunk.prepare(images), program.branches))


def _wanted(program: Program, here: World, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return program.network(preprocess(images, here.target[1]))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_copy_answers_as_a_local_attach_does(here: World, precision: torch.dtype, count: int) -> None:
    program = _program(here, Mode(precision=precision), here.bundles[:count])
    for size in (1, 5):
        images = here.images(size, size)
        found, wanted = _answer(program, images), _wanted(program, here, images)
        assert found.dtype == torch.float32
        assert float((found - wanted).abs().max()) <= TOLERANCE[precision] * float(wanted.abs().max())


def test_exact_programs_give_the_very_bits(here: World) -> None:
    program = _program(here, Mode(exact=True), here.bundles)
    images = here.images(4)
    assert torch.equal(_answer(program, images), _wanted(program, here, images))


def test_making_copies_leaves_target_and_module_alone(here: World) -> None:
    target = here.target[0]
    attached = attach(target, here.bundles[2]).attached[0]
    before = fingerprint(target), fingerprint(attached)
    trunk = Trunk(without_modules(*here.target), Mode())
    Branch(attached, trunk)
    assert (fingerprint(target), fingerprint(attached)) == before
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in target.modules())


def test_a_copy_without_batch_norms_is_what_runs(here: World) -> None:
    trunk = Trunk(without_modules(*here.target), Mode())
    seen = []
    hook = here.target[0].get_submodule("blocks.0.0").register_forward_hook(lambda *_: seen.append(1))
    with torch.inference_mode():
        trunk.read(trunk.prepare(here.images(2)), ())
    hook.remove()
    assert not seen


def test_a_copy_that_answers_otherwise_is_not_used(
    here: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from app.serving.engine import parts, programs

    fold = parts.folded

    def spoilt(part: torch.fx.GraphModule, precision: torch.dtype = torch.float32) -> torch.fx.GraphModule:
        made = fold(part, precision)
        next(made.parameters()).data += 1
        return made

    monkeypatch.setattr(programs, "folded", spoilt)
    monkeypatch.setattr(parts, "folded", spoilt)
    with caplog.at_level(logging.WARNING):
        program = _program(here, Mode(), here.bundles[:1])
    assert "differ by" in caplog.text
    images = here.images(3)
    assert torch.equal(_answer(program, images), _wanted(program, here, images))


def test_a_network_that_cannot_be_copied_is_run_as_it_is(
    here: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from app.serving.engine import programs

    monkeypatch.setattr(programs, "folded", lambda *_: 1 / 0)
    with caplog.at_level(logging.WARNING):
        program = _program(here, Mode())
    assert "making it failed" in caplog.text
    images = here.images(3)
    assert torch.equal(_answer(program, images), _wanted(program, here, images))


def test_a_shutter_still_decides_image_by_image(here: World) -> None:
    """What depends on the batch must not be recorded: the record would keep one image's decision for all."""
    bundle, images = here.bundles[0], here.images(40)
    head = bundle.manifest.head
    trunk = Trunk(without_modules(*here.target), Mode(exact=True))
    reader = Branch(attach(trunk.target, here.bundles[1]).attached[0], trunk)
    with torch.inference_mode():
        seen = trunk.read(trunk.prepare(images), (reader,)).pooled[head.grid]
    weights = torch.randn(seen.shape[1], generator=torch.Generator().manual_seed(3))
    verdict = seen @ weights
    bar = verdict.median()
    # The copy's taps differ by this much at most, so that an image nearer to the bar may be decided either way.
    clear = (verdict - bar).abs() > TOLERANCE[torch.float32] * float(seen.abs().max() * weights.abs().sum())
    shutter = {"head.shutter_weight": weights, "head.shutter_bias": -bar}
    strict = replace(
        bundle,
        manifest=replace(bundle.manifest, head=replace(head, strict=True)),
        tensors={**bundle.tensors, **shutter},
    )
    program = _program(here, Mode(), (strict,))
    found, wanted = _answer(program, images)[clear, -1], _wanted(program, here, images)[clear, -1]
    opened = int((wanted != SHUT).sum())
    assert min(opened, len(wanted) - opened) > 15
    assert torch.equal(found == SHUT, wanted == SHUT)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_torch_compile_makes_the_copies_where_it_is_asked_for(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that needs no compiler; what is shown is that every size of batch is made and answers."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    program = _program(here, Mode(compile=True), here.bundles[:1])
    for size in (1, 2, 4):
        images = here.images(size)
        assert torch.allclose(_answer(program, images), _wanted(program, here, images), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [({}, ()), ({"deterministic": True}, (6,)), ({"serving_compile": True}, (1, 2, 4, 6))],
)
def test_sizes_of_batches_follow_the_mode(settings: dict[str, bool], sizes: tuple[int, ...]) -> None:
    assert limits(Settings(batch_images=6, **settings)).sizes == sizes  # type: ignore[arg-type]


@pytest.mark.parametrize("beside", [{"serving_compile": True}, {"serving_precision": "bf16"}])
def test_exact_and_fast_exclude_each_other(beside: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="deterministic: expected float32"):
        Settings(deterministic=True, **beside)  # type: ignore[arg-type]


def test_a_network_is_run_on_as_many_threads_as_it_is_worth(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "threads_for", lambda work, threads: threads or (2 if work >= 800 else 1))
    before, images = torch.get_num_threads(), torch.zeros(2, *here.target[1].input_size, dtype=torch.uint8)
    try:
        for mode, macs, wanted in ((Mode(batch=8), 99, 1), (Mode(batch=8), 100, 2), (Mode(threads=1), 100, 1)):
            trunk = Trunk(without_modules(*here.target), mode, macs)
            trunk.read(trunk.prepare(images), ())
            assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)
