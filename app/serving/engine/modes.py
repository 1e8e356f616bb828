"""How networks are prepared for execution."""

from dataclasses import dataclass

import torch

from app.serving.engine.exporter import Exporter


@dataclass(frozen=True)
class Mode:
    """How networks are prepared for execution."""

    exact: bool = False
    """Run the original networks, with the same bits as a local `attach`."""
    precision: torch.dtype = torch.float32
    """Precision of the copies' layers. Heads and logits are always float32."""
    compile: bool = False
    """Make the copies with torch.compile, which takes a minute and a C++ compiler."""
    device: str = "cpu"
    """Device of the networks."""
    batch: int = 8
    """Most images in a batch. The cost of such a batch determines the number of threads."""
    threads: int | None = None
    """Number of threads for all networks; None: by the cost of a batch."""
    exporter: Exporter | None = None
    """Makes programs for ONNX Runtime; None: torch runs all networks."""

    def close(self) -> None:
        """End the exporter."""
        if self.exporter is not None:
            self.exporter.close()
