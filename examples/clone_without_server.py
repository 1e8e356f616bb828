"""Clone, attach and detach with the library alone, without a server."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from pnc_core import CloneConfig, ImageSet, NetworkSpec, attach, clone, detach, evaluate, fingerprint, load_network

low, high = tuple("01234"), tuple("56789")
shape = {"architecture": "cnn", "options": {"width": 32}, "input_size": (1, 8, 8), "mean": (0.3,), "std": (0.37,)}
target_spec, source_spec = NetworkSpec(classes=low, **shape), NetworkSpec(classes=high, **shape)
target = load_network(target_spec, Path("digits-low.safetensors"))
source = load_network(source_spec, Path("digits-high.safetensors"))

digits = load_digits()
pixels = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]  # uint8 (N, C, H, W)
images = ImageSet(pixels, torch.from_numpy(digits.target), tuple("0123456789"))
learn, test = images.split(0.5, torch.Generator().manual_seed(0))

before = fingerprint(target)
bundle = clone((target, target_spec), (source, source_spec), learn, CloneConfig(classes=("7", "8", "9")))
bundle.write("full.safetensors")  # usable without the source
bundle.thin().write("thin.safetensors")  # usable with the source only

composed = attach(target, "full.safetensors")  # or attach(target, "thin.safetensors", source=source)
print(composed.classes, evaluate(composed, test))
assert detach(composed) is target
assert fingerprint(target) == before
