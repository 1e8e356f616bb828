"""Export a target with its modules as one file that runs without this library: `torch.export` or ONNX.

The file contains copies of target and modules; they cannot be detached from it. The export is made on the CPU, so the
file runs on any machine. Every export is compared with the network before it is returned or written.
"""

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pnc_core.config import NetworkSpec
from pnc_core.errors import ConfigError, NetworkError
from pnc_core.files import written_whole
from pnc_core.images import preprocess
from pnc_core.module.composed import Composed, without_modules

MAX_BATCH = 1024
PROBES = (2, 5)
"""Batch sizes of the comparison. They differ, because an export must accept any batch size."""
TOLERANCE = 1e-4
"""Largest allowed difference of a logit, relative to the largest logit. Other kernels round differently."""


class _Whole(nn.Module):
    """A network with target and modules as submodules."""

    def __init__(self, composed: Composed, *, pixels: bool) -> None:
        super().__init__()
        self.composed, self.target = composed, composed.target
        self.trunk = composed.trunk
        self._spec, self._pixels = composed.traced.spec, pixels

    def forward(self, images: Tensor) -> Tensor:
        """uint8 pixels or preprocessed images (N, C, H, W) -> logits (N, classes)."""
        logits: Tensor = self.composed(preprocess(images, self._spec) if self._pixels else images)
        return logits


def to_program(network: nn.Module, spec: NetworkSpec, *, pixels: bool = False) -> torch.export.ExportedProgram:
    """Export to a `torch.export` program: images -> logits, for batches of 1 to 1024 images.

    Args:
        network: A target, or a target with modules.
        spec: The target's spec.
        pixels: True: the program takes uint8 pixels and preprocesses them. False: it takes preprocessed float32 images.

    Raises:
        NetworkError: the network is in train mode or cannot be exported, or the export gives other logits.
    """
    whole, images = _ready(network, spec, pixels=pixels)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        program = torch.export.export(whole, (images[0],), dynamic_shapes={"images": {0: batch}})
    except Exception as error:  # tracing runs the network's own code, which may raise any error
        raise NetworkError(
            f"network: expected one torch.export can follow, got {type(error).__name__}: {error}"
        ) from error
    run = program.module()
    _compare([run(x) for x in images], whole, images, "torch.export")
    return program


def to_onnx(network: nn.Module, spec: NetworkSpec, path: Path | str, *, pixels: bool = False) -> None:
    """Write an ONNX file, input `images`, output `logits`; see `to_program`.

    Raises:
        ConfigError: the extra `onnx` is not installed.
        NetworkError: the network is in train mode or cannot be exported, or the file gives other logits. Then no file
            is written.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"ONNX: expected onnx, onnxscript and onnxruntime, got {error}; pip install 'pnc-zoo[onnx]'"
        ) from None
    whole, images = _ready(network, spec, pixels=pixels)
    program = to_program(network, spec, pixels=pixels)
    with written_whole(Path(path)) as half:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's exporter calls deprecated functions of torch
            torch.onnx.export(
                program,
                dynamo=True,
                f=half,
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(str(half), providers=["CPUExecutionProvider"])
        answers = [torch.from_numpy(session.run(None, {"images": x.numpy()})[0]) for x in images]
        _compare(answers, whole, images, "ONNX")


def to_pt2(network: nn.Module, spec: NetworkSpec, path: Path | str, *, pixels: bool = False) -> None:
    """Write a program as `torch.export.save` does; see `to_program`."""
    program = to_program(network, spec, pixels=pixels)
    with written_whole(Path(path)) as half, half.open("wb") as file:
        torch.export.save(program, file)


def _ready(network: nn.Module, spec: NetworkSpec, *, pixels: bool) -> tuple[_Whole, list[Tensor]]:
    composed = network if isinstance(network, Composed) else without_modules(network, spec)
    if any(part.training for part in (*composed.modules(), *composed.target.modules())):
        raise NetworkError("network: expected eval mode everywhere, got train mode; call .eval() on target and modules")
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, *spec.input_size) for count in PROBES]
    noise = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    images = noise if pixels else [preprocess(x, spec) for x in noise]
    whole = _Whole(composed, pixels=pixels).eval()
    return (whole if composed.traced.device.type == "cpu" else copy.deepcopy(whole).cpu()), images


def _compare(answers: list[Tensor], whole: _Whole, images: list[Tensor], kind: str) -> None:
    for got, x in zip(answers, images, strict=True):
        with torch.no_grad():
            wanted = whole(x)
        error = float((got.detach() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))
        if got.shape != wanted.shape or not error <= TOLERANCE:
            raise NetworkError(f"{kind}: expected the network's own logits within {TOLERANCE}, got {error:.2g} off")
