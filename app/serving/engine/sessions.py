"""Programs for ONNX Runtime: an exported network as a function from tensors to tensors."""

import importlib.util
from collections.abc import Sequence

import torch
from torch import Tensor

from app.serving.engine.copies import EXAMPLES, TOLERANCE, Run, difference
from app.serving.engine.parts import Tensors

NEEDED = ("onnxruntime", "onnxscript")
"""Packages that export and run programs."""
SIZES = (EXAMPLES, 1)
"""Batch sizes with which a program is compared with its original."""


def is_installed() -> bool:
    """Whether networks can be exported and run by ONNX Runtime."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


class Session:
    """An ONNX model that runs on the processor, in the caller's thread and `threads - 1` further ones.

    It takes float32 tensors in the order of `inputs` and returns float32 tensors.

    Args:
        model: Bytes of the ONNX file.
        inputs: Names of all inputs. The model need not have each of them.
        threads: Number of threads.

    Raises:
        Exception: ONNX Runtime cannot run the model.
    """

    def __init__(self, model: bytes, inputs: Sequence[str], threads: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False  # an arena keeps the memory of the largest batch for each program
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        vars(self._session).pop("_model_bytes", None)  # kept by the class to try again with another provider
        present = {one.name for one in self._session.get_inputs()}
        self._inputs = [(i, name) for i, name in enumerate(inputs) if name in present]
        self._outputs = [one.name for one in self._session.get_outputs()]

    def __call__(self, *tensors: Tensor) -> Tensors:
        """Run on a batch."""
        given = {name: tensors[i].contiguous().numpy() for i, name in self._inputs}
        return tuple(map(torch.from_numpy, self._session.run(self._outputs, given)))


def checked(session: Session, original: Run, examples: Tensors) -> Session:
    """The session, after a comparison with its original.

    Args:
        session: The exported network.
        original: The original network.
        examples: At least `EXAMPLES` rows of inputs.

    Raises:
        ValueError: the answers differ.
    """
    with torch.inference_mode():
        for size in SIZES:
            rows = tuple(example[:size] for example in examples)
            wrong = difference(session(*rows), original(*rows))
            if not wrong <= TOLERANCE[torch.float32]:
                raise ValueError(f"expected the answers of the original network, got {wrong:.2g} of the largest off")
    return session
