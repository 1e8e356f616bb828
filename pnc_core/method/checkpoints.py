"""What a job has worked out so far, kept so that it can go on elsewhere after an interruption.

A job is a chain of named steps. Randomness is drawn by purpose, not from one stream, and whoever works a step out
gets the same state, bit for bit, on processors of one kind and with one number of threads. So a state that was
kept may stand in for the work, and steps that do not need one another may be shared between processes.

Source: own choice; the paper is silent on it.
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
"""Works out several steps at once: what they have in common is done once."""


@dataclass(frozen=True)
class State:
    """Where a step stands, or what it came to."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Whatever JSON can hold."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Copies: later steps of the job do not change them."""

    def to_bytes(self) -> bytes:
        """One safetensors file; the facts are in its metadata."""
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return safetensors.torch.save(whole, {"facts": json.dumps(self.facts)})

    @classmethod
    def read(cls, path: Path) -> "State":
        """A state from its file.

        Raises:
            TensorFileError: it is damaged.
        """
        facts = json.loads(read_header(path).metadata["facts"])
        with safe_open(path, "pt") as file:
            return cls(facts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping


class Checkpoints(Protocol):
    """Where a job's states are kept."""

    def load(self, step: str) -> State | None:
        """The newest state of a step; None if there is none."""

    def offer(self, step: str, state: State) -> None:
        """A step has come this far. Whether it is worth keeping is decided here; at the latest when the job stops."""

    def save(self, step: str, state: State) -> None:
        """A step is worked out. What was offered before has become superfluous."""

    def each(self, steps: Sequence[str], work: Work) -> Iterable[State]:
        """What independent steps come to, in their order, whoever works them out."""


class NoCheckpoints:
    """Keeps nothing: a job that is interrupted begins anew."""

    def load(self, step: str) -> State | None:
        """See `Checkpoints.load`."""
        return None

    def offer(self, step: str, state: State) -> None:
        """See `Checkpoints.offer`."""

    def save(self, step: str, state: State) -> None:
        """See `Checkpoints.save`."""

    def each(self, steps: Sequence[str], work: Work) -> Iterable[State]:
        """See `Checkpoints.each`; all at once."""
        return work(steps)


class FolderCheckpoints:
    """Keeps every state as a file of one directory; for jobs that run without a service.

    Args:
        root: The directory, one for every job; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self, step: str) -> State | None:
        """See `Checkpoints.load`."""
        path = self._path(step)
        return State.read(path) if path.is_file() else None

    def offer(self, step: str, state: State) -> None:
        """See `Checkpoints.offer`; every one is kept."""
        self.save(step, state)

    def save(self, step: str, state: State) -> None:
        """See `Checkpoints.save`; the file appears whole or not at all."""
        with written_whole(self._path(step)) as half:
            half.touch(0o600)  # weights, which are their owner's alone
            half.write_bytes(state.to_bytes())

    def each(self, steps: Sequence[str], work: Work) -> Iterable[State]:
        """See `Checkpoints.each`; what is not there yet is worked out at once."""
        missing = [step for step in steps if not self._path(step).is_file()]
        for step, state in zip(missing, work(missing) if missing else [], strict=True):
            self.save(step, state)
        return [State.read(self._path(step)) for step in steps]

    def _path(self, step: str) -> Path:
        return self._root / f"{hashlib.sha256(step.encode()).hexdigest()}.safetensors"
