"""Export a part of a network as ONNX, in a child process: `python -m app.serving.engine.exporting`.

The exporter of torch is Python code that runs for seconds and keeps memory for each network. In the serving process it
would hold Python's global lock, and the process would grow with each module.

A child reads the weights or the bundle from the store's file, which the parent has checked, and answers with the bytes
of an ONNX model.
"""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor, nn

from app.process.child_pool import Bytes, serve
from app.serving.engine.parts import BranchPart, Reads, ReadTrunk, copied, without_locality_gate
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network, load_network
from pnc_core.graph.positions import trace
from pnc_core.module.bundle import read_bundle
from pnc_core.module.module import load_module

MOST_BATCH = 1024
"""Most images of a batch, as for the setting `batch_images`."""
NICENESS = 10
"""Niceness of a child, so that inference has precedence."""
EXAMPLE_ROWS = 2


def trunk_order(spec: NetworkSpec, reads: Reads) -> dict[str, Any]:
    """The order of a target with the outputs that modules read."""
    return {"kind": "trunk", "spec": spec.to_dict(), "entries": reads.entries, "pools": reads.pools}


def branch_order(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The order of a module.

    Args:
        shapes: Shape of a row of each input.
    """
    return {"kind": "branch", "shapes": dict(shapes)}


def export(order: Mapping[str, Any], path: Path) -> bytes:
    """Export the part of a network that an order describes.

    Args:
        order: Made by `trunk_order` or `branch_order`.
        path: The target's weights, or the module's bundle with payload `full`.

    Returns:
        An ONNX model whose inputs and outputs have any number of rows.

    Raises:
        Exception: the network cannot be exported.
    """
    part, shapes = _trunk(order, path) if order["kind"] == "trunk" else _branch(order, path)
    inputs = tuple(torch.zeros(EXAMPLE_ROWS, *shape) for shape in shapes.values())
    return _exported(part.eval().requires_grad_(False), inputs, list(shapes))


def _trunk(order: Mapping[str, Any], path: Path) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    spec = NetworkSpec(**order["spec"])
    reads = Reads(tuple(order["entries"]), tuple((grid, taps) for grid, taps in order["pools"]))
    return ReadTrunk(trace(load_network(spec, path), spec), reads, fold=True), {"images": spec.input_size}


def _branch(order: Mapping[str, Any], path: Path) -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    bundle = read_bundle(path)
    target = bundle.manifest.target
    module = load_module(bundle, trace(build_network(target, device="meta"), target))
    shapes = {name: tuple(shape) for name, shape in order["shapes"].items()}
    return BranchPart(copied(without_locality_gate(module))), shapes


def _exported(part: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> bytes:
    rows = torch.export.Dim("rows", min=1, max=MOST_BATCH)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter calls deprecated functions of torch
        program = torch.export.export(part, inputs, dynamic_shapes=tuple({0: rows} for _ in inputs))
        made = torch.onnx.export(program, dynamo=True, input_names=names, external_data=False, verbose=False)
    assert made is not None  # a program is returned if no file is given
    model: bytes = made.model_proto.SerializeToString()
    return model


def _answer(head: bytearray, body: bytearray) -> tuple[Bytes, Bytes]:
    order = orjson.loads(head)
    try:
        return b"{}", export(order, Path(body.decode()))
    except Exception as error:  # the exporter runs the network's own code, which may raise any error
        lines = str(error).strip().splitlines() or [""]
        return orjson.dumps({"error": f"{type(error).__name__}: {lines[0][:500]}"}), b""


if __name__ == "__main__":
    tempfile.gettempdir()  # torch asks for it; it is found by writing a file, which a child may not do later
    torch.set_num_threads(1)
    serve(_answer, niceness=NICENESS)
