"""Where a module enters: an activation of the target, or the image itself as the source sees it.

A module whose adapter lies between the two inputs is nearly the whole source. Where the source sees other pixels than
the target, such a module takes the image preprocessed for the source: its manifest has `adapter_resize: image`.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pnc_core.config import NetworkSpec
from pnc_core.graph.positions import INPUT
from pnc_core.images import PILLOW_ONLY, Views, preprocess, to_pixels
from pnc_core.module.manifest import Manifest


def takes_image(manifest: Manifest) -> bool:
    """Does the module take the image preprocessed for the source, and no activation of the target?"""
    return manifest.adapter_resize == "image"


def entry_of(manifest: Manifest) -> str:
    """Name, among the activations of a batch, of the tensor that the module takes."""
    return f"{INPUT} of {manifest.source_fingerprint}" if takes_image(manifest) else manifest.position.target


def read_of(manifest: Manifest) -> str:
    """Position of the target that has to be read for the module."""
    return INPUT if takes_image(manifest) else manifest.position.target


def pixels_for(manifest: Manifest) -> NetworkSpec:
    """The network for which images are preprocessed before they reach the module: the target or the source."""
    return manifest.source if takes_image(manifest) else manifest.target


def entered(
    manifests: Iterable[Manifest], images: Tensor | Views, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The images as modules take them that take the image itself, by `entry_of`.

    Args:
        manifests: Of all modules; those that take an activation of the target are skipped.
        images: uint8 images (N, C, H, W), or views of them.
        device: Where the results lie.
    """
    direct = {entry_of(m): m.source for m in manifests if takes_image(m)}
    return {name: preprocess(images, source, device) for name, source in direct.items()}


def phi_of(manifest: Manifest, activations: Mapping[str, Tensor]) -> Tensor:
    """The tensor that a module takes.

    Without the images themselves the target's input is taken for the image: it is brought back to pixels, and the
    source's preprocessing is applied to these.

    Args:
        manifest: Of the module.
        activations: Of one batch, by position, and the images from `entered`, if they are known.
    """
    name = entry_of(manifest)
    if name in activations or not takes_image(manifest):
        return activations[name]
    return from_target(activations[INPUT], manifest.target, manifest.source)


def from_target(x: Tensor, target: NetworkSpec, source: NetworkSpec) -> Tensor:
    """The target's input (N, C, H, W) as the source's: back to pixels 0..255, then preprocessed for the source.

    Torch resizes, so that an exported network does the same; only Pillow has box, Hamming and Lanczos interpolation.
    """
    pixels = to_pixels(x, target).round().clamp(0, 255)
    by_pillow = source.preprocessing.interpolation in PILLOW_ONLY
    return preprocess(pixels.to(torch.uint8) if by_pillow else pixels, source, x.device)
