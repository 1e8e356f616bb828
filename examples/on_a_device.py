"""Attach a thin bundle on a device that has both networks, and classify one image, without a server."""

import json
from pathlib import Path

import torch
from PIL import Image

from pnc_core import NetworkSpec, attach, detach, fingerprint, load_network, preprocess, views_of


def network(name: str) -> tuple[torch.nn.Module, NetworkSpec]:
    """A network and its spec, from two files with the same stem."""
    spec = NetworkSpec(**json.loads(Path(f"{name}.json").read_text()))
    return load_network(spec, Path(f"{name}.safetensors")), spec


target, spec = network("digits-low")
source, _ = network("digits-high")

before = fingerprint(target)
composed = attach(target, "thin.safetensors", source=source)
picture = views_of(Image.open("seven.png"), composed.sees)  # each network sees the picture in its own size
with torch.inference_mode():
    print("alone:   ", spec.classes[int(target(preprocess(picture, spec)).argmax())])
    print("composed:", composed.classes[int(composed.logits(picture).argmax())])
assert detach(composed) is target
assert fingerprint(target) == before
