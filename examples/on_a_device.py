"""Attach a thin bundle on a device that has both networks, and classify one image, without a server."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pnc_core import NetworkSpec, attach, detach, fingerprint, load_network, preprocess


def network(name: str) -> tuple[torch.nn.Module, NetworkSpec]:
    """A network and its spec, from two files with the same stem."""
    spec = NetworkSpec(**json.loads(Path(f"{name}.json").read_text()))
    return load_network(spec, Path(f"{name}.safetensors")), spec


target, spec = network("digits-low")
source, _ = network("digits-high")
pixels = torch.from_numpy(np.array(Image.open("seven.png").convert("L")))  # uint8 (H, W)
image = preprocess(pixels[None, None], spec)

before = fingerprint(target)
composed = attach(target, "thin.safetensors", source=source)
with torch.inference_mode():
    print("alone:   ", spec.classes[int(target(image).argmax())])
    print("composed:", composed.classes[int(composed(image).argmax())])
assert detach(composed) is target
assert fingerprint(target) == before
