"""Programs for ONNX Runtime: exported in another process, compared, kept, and swapped in while torch answers."""

import ctypes
import gc
import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from weakref import WeakMethod

import psutil
import pytest
import safetensors.torch
import torch

from app.serving.engine import exporting
from app.serving.engine.copies import TOLERANCE
from app.serving.engine.exporter import Exporter, Order, StoredFile
from app.serving.engine.modes import Mode
from app.serving.engine.parts import Reads
from app.serving.engine.program_files import ProgramFiles
from app.serving.engine.programs import Branch, Program, Trunk, _reads_of, put_together
from app.serving.engine.sessions import Session
from app.serving.main import create_serving_app
from pnc_core.images import preprocess
from pnc_core.module.bundle import Bundle
from pnc_core.module.composed import attach, without_modules
from pnc_core.module.composition import module_digest
from pnc_core.module.head import SHUT
from tests.unit.serving import composing
from tests.unit.serving.world import World

SECONDS = 240.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ProgramFiles:
    return ProgramFiles(tmp_path_factory.mktemp("programs"), 2**30)


@pytest.fixture(scope="module")
def exporter(files: ProgramFiles) -> Iterator[Exporter]:
    made = Exporter(files)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def _stored(path: Path) -> StoredFile:
    return StoredFile(sha256(path.read_bytes()).hexdigest(), lambda: nullcontext(path))


def _weights(here: World, folder: Path) -> StoredFile:
    path = folder / "target.safetensors"
    safetensors.torch.save_file(here.target[0].state_dict(), path)
    return _stored(path)


def _bundle(bundle: Bundle, path: Path) -> StoredFile:
    bundle.write(path)
    return _stored(path)


def _program(here: World, folder: Path, exporter: Exporter, bundles: tuple[Bundle, ...]) -> Program:
    trunk = Trunk(without_modules(*here.target), Mode(exporter=exporter), file=_weights(here, folder))
    branches = [
        Branch(attach(trunk.target, bundle).attached[0], trunk, _bundle(bundle, folder / f"{number}.safetensors"))
        for number, bundle in enumerate(bundles)
    ]
    return put_together(trunk, branches)


def _answer(program: Program, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return program.answer(program.trunk.read(program.trunk.prepare(images), program.branches))


def _wanted(program: Program, here: World, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return program.network(preprocess(images, here.target[1]))


def _strict(bundle: Bundle, seen: torch.Tensor) -> Bundle:
    """A bundle with a locality gate that half of the images pass; `seen` are their pooled taps."""
    weights = torch.randn(seen.shape[1], generator=torch.Generator().manual_seed(3))
    middle = (seen @ weights).sort().values[len(seen) // 2 - 1 : len(seen) // 2 + 1].mean()
    head = replace(bundle.manifest.head, strict=True)
    gate = {"head.shutter_weight": weights, "head.shutter_bias": -middle}
    return replace(bundle, manifest=replace(bundle.manifest, head=head), tensors={**bundle.tensors, **gate})


def _is_exported(program: Program) -> bool:
    return program.trunk.program(Reads()) is not None and all(
        isinstance(branch._run, Session) for branch in program.branches
    )


@pytest.mark.always
def test_torch_answers_until_the_exported_programs_are_swapped_in(
    here: World, folder: Path, exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    program, images = _program(here, folder, exporter, here.bundles), here.images(40)
    alone = put_together(program.trunk, [])
    assert not _is_exported(program)
    tolerance = TOLERANCE[torch.float32]
    with caplog.at_level(logging.WARNING):
        program.ask_for_programs()
        assert exporter.settled(0) is False
        for one in (program, alone):  # answered by torch, since an export takes seconds
            wanted = _wanted(one, here, images)
            assert float((_answer(one, images) - wanted).abs().max()) <= tolerance * float(wanted.abs().max())
        assert exporter.settled(SECONDS)
    assert not caplog.records
    assert _is_exported(program)
    for one in (program, alone):
        for size in (1, 3, 40):
            wanted = _wanted(one, here, images[:size])
            assert float((_answer(one, images[:size]) - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def test_exported_programs_read_the_taps_of_a_composition_s_head(here: World, folder: Path, exporter: Exporter) -> None:
    numbers = composing.made(here, (0, 1), "joint")
    plain, images = _program(here, folder, exporter, here.bundles[:2]), here.images(9)
    for branch, bundle in zip(plain.branches, here.bundles, strict=False):
        branch.thin_digest = module_digest(bundle)
    program = put_together(plain.trunk, plain.branches, ("cmp_1", numbers))
    assert program.common is not None
    program.ask_for_programs()
    assert exporter.settled(SECONDS)
    assert _is_exported(program)
    assert program.trunk.program(_reads_of(program.branches, program.heads)) is not None
    with torch.inference_mode():
        output = program.trunk.read(program.trunk.prepare(images), program.branches, None, program.heads)
        found = program.answer(output)
    wanted = _wanted(program, here, images)
    assert float((found - wanted).abs().max()) <= TOLERANCE[torch.float32] * float(wanted.abs().max())
    assert float((found - _wanted(plain, here, images)).abs().max()) > 0.01


def test_the_engine_of_the_target_alone_is_chosen_once(here: World, folder: Path, exporter: Exporter) -> None:
    program, images = _program(here, folder, exporter, ()), here.images(3)
    assert program.trunk.has_engine(0)  # no program within no time: torch
    torch_bits = _answer(program, images)
    assert exporter.settled(SECONDS)
    assert program.trunk.program(Reads()) is not None
    assert program.trunk.has_engine(SECONDS)
    assert torch.equal(_answer(program, images), torch_bits)

    waiting = _program(here, folder, exporter, ())
    waiting.trunk.has_engine(SECONDS)
    assert exporter.settled(SECONDS)
    assert waiting.trunk.has_engine(SECONDS)
    assert not torch.equal(_answer(waiting, images), torch_bits)


def test_torch_runs_a_target_whose_program_cannot_be_made(
    here: World, folder: Path, files: ProgramFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Exporter(ProgramFiles(folder / "programs", 2**20))
    monkeypatch.setattr(failing, "_exported", _raise)
    program = _program(here, folder, failing, ())
    program.trunk.has_engine(SECONDS)  # asks
    assert failing.settled(SECONDS)
    assert program.trunk.has_engine(SECONDS)
    assert program.trunk.program(Reads()) is None
    failing.close()


def _raise(order: Order) -> bytes:
    raise ValueError(f"expected another network than {order.key}")


def test_programs_are_kept_for_the_next_process(
    here: World, folder: Path, exporter: Exporter, files: ProgramFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _program(here, folder, exporter, here.bundles[:1])
    first.ask_for_programs()
    assert exporter.settled(SECONDS)
    later = Exporter(files)
    monkeypatch.setattr(later, "_exported", lambda _: pytest.fail("expected a program from the folder"))
    program = _program(here, folder, later, here.bundles[:1])
    program.ask_for_programs()
    assert later.settled(SECONDS)
    assert _is_exported(program)
    later.close()


def test_a_locality_gate_decides_image_by_image_before_the_program(
    here: World, folder: Path, exporter: Exporter
) -> None:
    plain, images = here.bundles[1], here.images(40)
    trunk = Trunk(without_modules(*here.target), Mode(exact=True))
    reader = Branch(attach(trunk.target, plain).attached[0], trunk)
    with torch.inference_mode():
        seen = trunk.read(trunk.prepare(images), (reader,)).pooled[plain.manifest.head.grid]
    program = _program(here, folder, exporter, (_strict(plain, seen.clone()),))
    program.ask_for_programs()
    assert exporter.settled(SECONDS)
    assert _is_exported(program)
    found, wanted = _answer(program, images)[:, 5:], _wanted(program, here, images)[:, 5:]
    shut = wanted[:, 0] == SHUT
    assert 0 < int(shut.sum()) < len(images)
    assert torch.equal(found[:, 0] == SHUT, shut)
    assert float((found - wanted).abs().max()) <= TOLERANCE[torch.float32] * float(wanted[~shut].abs().max())


def test_a_program_that_answers_otherwise_is_not_used(
    here: World, folder: Path, exporter: Exporter, files: ProgramFiles, caplog: pytest.LogCaptureFixture
) -> None:
    program, images = _program(here, folder, exporter, here.bundles[:1]), here.images(3)
    doubled = {n: t + t if t.is_floating_point() else t for n, t in here.bundles[0].tensors.items()}
    other = replace(here.bundles[0], tensors=doubled)
    branch = program.branches[0]
    branch._file = _bundle(other, folder / "other.safetensors")
    with caplog.at_level(logging.WARNING):
        branch.ask_for_program()
        assert exporter.settled(SECONDS)
    assert "expected the answers of the original network" in caplog.text
    assert not isinstance(branch._run, Session)
    wanted = _wanted(program, here, images)
    assert torch.allclose(_answer(program, images), wanted, atol=1e-4)


def test_a_network_that_cannot_be_exported_stays_with_torch(
    here: World, folder: Path, exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "broken.safetensors"
    path.write_bytes(b"not a bundle")
    program = _program(here, folder, exporter, here.bundles[:1])
    branch = program.branches[0]
    branch._file = _stored(path)
    with caplog.at_level(logging.WARNING):
        branch.ask_for_program()
        assert exporter.settled(SECONDS)
    assert "torch runs it, because no program could be made: BundleError" in caplog.text
    assert not isinstance(branch._run, Session)


def test_nothing_is_exported_for_a_module_that_is_gone(
    here: World, folder: Path, files: ProgramFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, asked = Exporter(files), []
    monkeypatch.setattr(idle, "_exported", asked.append)
    program = _program(here, folder, idle, here.bundles[2:])
    order, gone = Order(_stored(folder / "0.safetensors"), {"kind": "branch"}), WeakMethod(program.branches[0]._receive)
    del program
    gc.collect()
    idle._fulfil(order, gone)
    assert not asked


def test_damaged_programs_are_made_again_and_old_ones_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = ProgramFiles(tmp_path, 300)
    assert kept.get("a") is None
    kept.put("a", bytes(100))
    assert kept.get("a") == bytes(100)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with caplog.at_level(logging.WARNING):
        assert kept.get("a") is None
    assert "made again" in caplog.text
    for number, key in enumerate("bcd"):
        kept.put(key, bytes(100))
        os.utime(tmp_path / f"{key}.onnx", (number, number))
    assert [kept.get(key) is not None for key in "bcd"] == [False, True, True]
    kept.put("large", bytes(301))
    assert kept.get("large") is None


@pytest.mark.parametrize(
    ("settings", "exports"),
    [
        ({"serving_engine": "onnxruntime"}, True),
        ({"serving_engine": "torch"}, False),
        ({"deterministic": True}, False),
        ({"serving_precision": "bf16"}, False),
        ({"serving_compile": True}, False),
    ],
)
def test_only_float32_on_the_processor_is_exported(here: World, settings: dict[str, object], exports: bool) -> None:
    wanted = here.zoo.settings.model_copy(update={"serving_engine": "onnxruntime", **settings})
    mode = create_serving_app(wanted).state.host.registry.mode
    assert (mode.exporter is not None) == exports


def _used() -> float:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return float(psutil.Process().memory_full_info().uss) / 2**20


def test_modules_that_come_and_go_leave_no_memory_behind(here: World, folder: Path, exporter: Exporter) -> None:
    """With torch.jit, which served modules before, 160 modules left about 19 MiB."""
    trunk = Trunk(without_modules(*here.target), Mode())
    bundle = here.bundles[0]
    stored = _bundle(bundle, folder / "module.safetensors")
    first = Branch(attach(trunk.target, bundle).attached[0], trunk, stored)
    order = Order(stored, exporting.branch_order(first._shapes))
    model = exporter._exported(order)
    images, before = here.images(8), 0.0
    for number in range(220):
        if number == 60:
            before = _used()
        branch = Branch(attach(trunk.target, bundle).attached[0], trunk, stored)
        _answer(put_together(trunk, [branch]), images)
        branch._receive(order, model)
        _answer(put_together(trunk, [branch]), images)
    del branch
    assert _used() - before < 10
