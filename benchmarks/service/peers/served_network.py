"""Loads the network that every peer serves."""

import json
import os
from pathlib import Path

import torch

from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import load_network
from pnc_core.images import preprocess

__all__ = ["load", "preprocess"]


def load() -> tuple[torch.nn.Module, NetworkSpec]:
    """Load the network from the folder in `MODEL`, in channels-last format, as our service does."""
    folder = Path(os.environ["MODEL"])
    spec = NetworkSpec(**json.loads((folder / "spec.json").read_text()))
    network = load_network(spec, folder / "target.safetensors").requires_grad_(False)
    return network.to(memory_format=torch.channels_last), spec
