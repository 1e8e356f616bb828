"""Images of stripes on grey, and a network that learns them in a second."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.images import ImageSet, preprocess

CLASSES = ("k1", "k2", "k10", "k3", "k4", "k5")
SPEC = NetworkSpec(
    architecture="cnn", classes=CLASSES, input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3, options={"width": 8}
)
RESIDUAL = replace(SPEC, architecture="cifar/resnet20")


def drawn(count: int, seed: int) -> ImageSet:
    """Three levels of grey, with a red or a blue stripe: brightness and colour tell the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    level = 50.0 + 60 * (labels % 3)
    pixels = level[:, None, None, None] + 8 * torch.randn(count, 3, 8, 8, generator=generator)
    rows, places = torch.arange(count), torch.randint(0, 6, (count,), generator=generator)
    for step in range(3):
        pixels[rows, 2 * (labels // 3), places + step] += 80
    return ImageSet(pixels.clamp(0, 255).to(torch.uint8), labels, CLASSES)


def trained(spec: NetworkSpec, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    images, network = drawn(384, 0), build_network(spec).train()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    inputs = preprocess(images.images, spec)
    for _ in range(epochs):
        for part in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[part]), images.labels[part]).backward()
            optimizer.step()
    return network.eval()
