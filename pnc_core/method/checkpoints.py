"""Checkpoints: saved states of a job's steps, so that another process can continue the job after an interruption.

A job is a chain of named steps. Every purpose has its own random generator (`Job.generator`). So every process computes
the same state of a step, bit for bit, given the same kind of processor and number of threads. A saved state can replace
the computation, and several processes can share independent steps.

Source: own choice; the paper does not treat interruptions.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
from safetensors import safe_open
from torch import Tensor

from pnc_core.files import written_whole
from pnc_core.tensorfile import read_header

Work = Callable[[Sequence[str]], list["State"]]
"""Runs several steps, given by name, and returns their states; passes that the steps share run once."""


@dataclass(frozen=True)
class State:
    """State of a step: intermediate, or its result."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Values that JSON can represent."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors by name; copies, so later steps do not change them."""

    def to_bytes(self) -> bytes:
        """Bytes of one safetensors file, with the facts as JSON in its metadata."""
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return safetensors.torch.save(whole, {"facts": json.dumps(self.facts)})

    @classmethod
    def read(cls, path: Path) -> "State":
        """Read a state from its file.

        Raises:
            TensorFileError: the file is damaged.
        """
        facts = json.loads(read_header(path).metadata["facts"])
        with safe_open(path, "pt") as file:
            return cls(facts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping


class Checkpoints(Protocol):
    """Storage of a job's states."""

    def load(self, step: str) -> State | None:
        """Return the newest state of a step; None if there is none."""

    def offer(self, step: str, state: State) -> None:
        """Pass the intermediate state of a step. The storage may skip it, but saves the newest when the job stops."""

    def save(self, step: str, state: State) -> None:
        """Save the result of a step. It replaces the step's intermediate states."""

    def each(self, steps: Sequence[str], work: Work) -> Iterable[State]:
        """Yield the results of independent steps, in order. Other processes may run some of the steps."""


class NoCheckpoints:
    """Saves nothing: an interrupted job starts from the beginning."""

    def load(self, step: str) -> State | None:
        """See `Checkpoints.load`."""
        return None

    def offer(self, step: str, state: State) -> None:
        """See `Checkpoints.offer`."""

    def save(self, step: str, state: State) -> None:
        """See `Checkpoints.save`."""

    def each(self, steps: Sequence[str], work: Work) -> Iterable[State]:
        """See `Checkpoints.each`; runs all steps in one call of `work`."""
        return work(steps)


class FolderCheckpoints:
    """Saves every state as a file in one directory, for jobs without a service.

    Args:
        root: A directory for this job only; created if missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self, step: str) -> State | None:
        """See `Checkpoints.load`."""
        path = self._path(step)
        return State.read(path) if path.is_file() else None

    def offer(self, step: str, state: State) -> None:
        """See `Checkpoints.offer`; saves every state."""
        self.save(step, state)

    def save(self, step: str, state: State) -> None:
        """See `Checkpoints.save`; the file is replaced atomically."""
        with written_whole(self._path(step)) as half:
            half.touch(0o600)  # the file holds weights: only the owner may read it
            half.write_bytes(state.to_bytes())

    def each(self, steps: Sequence[str], work: Work) -> Iterable[State]:
        """See `Checkpoints.each`; runs the missing steps in one call of `work`."""
        missing = [step for step in steps if not self._path(step).is_file()]
        for step, state in zip(missing, work(missing) if missing else [], strict=True):
            self.save(step, state)
        return [State.read(self._path(step)) for step in steps]

    def _path(self, step: str) -> Path:
        return self._root / f"{hashlib.sha256(step.encode()).hexdigest()}.safetensors"
